/** By the method that a reference names. A family has a file of its own. */
import type { MethodMapping } from '../reference-support.js';
import { additive } from './additive.js';
import { byRow } from './by-row.js';
import { loraFamily } from './lora-family.js';
import { selective } from './selective.js';

export const MAPPINGS: Readonly<Record<string, MethodMapping>> = {
  ...loraFamily,
  ...selective,
  ...additive,
  ...byRow,
};
