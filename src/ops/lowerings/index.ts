/** All lowerings by `domain.op`, newest step first. */
import { decompositions } from './decompositions.js';
import { forms } from './forms.js';
import type { Lowering } from './step.js';

const all: Readonly<Record<string, readonly Lowering[]>> = { ...forms, ...decompositions };

export const LOWERINGS: ReadonlyMap<string, readonly Lowering[]> = new Map(
  Object.entries(all).map(([op, steps]) => [`.${op}`, [...steps].sort((a, b) => b.before - a.before)]),
);
