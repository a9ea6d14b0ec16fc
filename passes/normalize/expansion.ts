/** Fused operators as formulas in standard ops. Where an op has an expansion, it needs no gradient rule. */
import { PeftCompileError } from '../../src/errors.js';
import type { Node, Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';

/** Replacements by output position; null for outputs that nobody reads. */
export type Expanded = readonly (Value | null)[];

export interface Expansion {
  readonly op: string;
  /** '' (ai.onnx) by default. */
  readonly domain?: string;
  /** The formula. Calls `refuse`, or returns undefined, where this form of the op has none. */
  readonly expand: (b: Builder, node: Node) => Expanded | undefined;
}

export function defineExpansion(expansion: Expansion): Expansion {
  return expansion;
}

class Refused extends Error {}

/** Ends an expansion: this form of the op is not covered, and why. What was built stays detached. */
export function refuse(reason: string): never {
  throw new Refused(reason);
}

/** What an expansion makes of a node, or why it makes nothing of it. */
export function tryExpand(
  expansion: Expansion,
  b: Builder,
  node: Node,
): Expanded | { readonly refused: string } {
  try {
    return expansion.expand(b, node) ?? { refused: 'this form of it has no formula' };
  } catch (error) {
    if (error instanceof Refused) return { refused: error.message };
    // A form that the model's opset cannot say, or a rank that inference could not find.
    if (error instanceof PeftCompileError && error.code === 'E_UNSUPPORTED')
      return { refused: error.message };
    throw error;
  }
}

/** Whether anything reads an output: a node, or a return slot. */
export function isRead(node: Node, ...indices: number[]): boolean {
  return indices.some((index) => (node.outputs[index]?.uses.size ?? 0) > 0);
}

/** An input that may be omitted. */
export function optional(node: Node, index: number): Value | undefined {
  return node.inputs[index] ?? undefined;
}

/** Refuses when one of the inputs is given; `what` finishes the sentence `it is given …`. */
export function refuseInputs(node: Node, inputs: Readonly<Record<number, string>>): void {
  for (const [index, what] of Object.entries(inputs))
    if (optional(node, Number(index)) !== undefined) refuse(`it is given ${what}`);
}
