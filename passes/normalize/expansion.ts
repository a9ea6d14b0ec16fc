/** Fused operators as formulas in standard ops. Where an op has an expansion, it needs no gradient rule. */
import type { Node, Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';

export interface Expansion {
  readonly op: string;
  /** '' (ai.onnx) by default. */
  readonly domain?: string;
  /** Replacements by output position; undefined when this form of the op is not covered. */
  readonly expand: (b: Builder, node: Node) => readonly (Value | null)[] | undefined;
}

export function defineExpansion(expansion: Expansion): Expansion {
  return expansion;
}
