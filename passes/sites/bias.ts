/** The bias behind a linear: an Add of a constant vector, or a fused op that absorbed it. */
import type { Node, Use, Value } from '../../src/graph.js';
import { fusedBias } from './fused-bias.js';
import type { SiteBias } from './site.js';
import { traceConstant } from './weight.js';

export interface JoinedBias {
  /** The output with the bias added, or the plain output where a fused op adds the bias. */
  readonly y: Value;
  readonly bias: SiteBias;
  /** The output with the bias, where it is added behind rounding to codes and back. */
  readonly biased?: Value;
}

/** The use of a value that has one use only; an output slot counts as a use. */
export function onlyUse(value: Value): Use | undefined {
  const [use] = value.uses;
  return value.uses.size === 1 ? use : undefined;
}

/** True when `value` is a constant with one entry per feature, `trailing` axes of 1 behind, and 1 elsewhere. */
export function isBias(value: Value, outDim: number, trailing = 0): boolean {
  const dims = traceConstant(value)?.dims;
  if (dims === undefined) return false;
  const features = dims.length - 1 - trailing;
  return dims[features] === outDim && dims.every((dim, i) => i === features || dim === 1);
}

/** `trailing`: how many axes `y` has behind its features. */
export function joinedBias(y: Value, outDim: number, trailing: number): JoinedBias | undefined {
  const use = onlyUse(y);
  if (use?.kind !== 'node' || use.node.graph !== y.producer?.graph) return undefined;
  const { node, index } = use;
  if (node.qualifiedOp === 'Add') {
    const bias = addedBias(node, index, outDim, trailing);
    return bias === undefined ? undefined : { y: node.output(0), bias };
  }
  const rounded = roundedCopy(y);
  if (rounded !== undefined) {
    const add = onlyUse(rounded);
    if (add?.kind !== 'node' || add.node.qualifiedOp !== 'Add') return undefined;
    // What is added to the output is rounded with it; the bias comes after that.
    const bias = addedBias(add.node, add.index, outDim, trailing);
    return bias === undefined
      ? undefined
      : { y, bias: { ...bias, included: false }, biased: add.node.output(0) };
  }
  const fused = fusedBias(node, index);
  if (fused === undefined) return undefined;
  const { input, columns } = fused;
  const { bias } = storedBias(node, input, { included: false });
  if (bias === undefined) return undefined;
  return { y, bias: columns === undefined ? bias : { ...bias, columns } };
}

/** The bias that an Add adds to its input `index`. */
function addedBias(node: Node, index: number, outDim: number, trailing: number): SiteBias | undefined {
  const other = node.inputs[1 - index];
  if (other === null || other === undefined || !isBias(other, outDim, trailing)) return undefined;
  return storedBias(node, 1 - index).bias;
}

/** What QuantizeLinear and DequantizeLinear, the only readers, make of a value. */
export function roundedCopy(value: Value): Value | undefined {
  const there = onlyUse(value);
  if (there?.kind !== 'node' || there.node.op !== 'QuantizeLinear' || there.index !== 0) return undefined;
  const back = onlyUse(there.node.output(0));
  if (back?.kind !== 'node' || back.node.op !== 'DequantizeLinear' || back.index !== 0) return undefined;
  return back.node.output(0);
}

/** The stored vector behind an input of a node; empty where it is absent or computed. */
export function storedBias(
  node: Node,
  input: number,
  { scale = 1, included = true }: { readonly scale?: number; readonly included?: boolean } = {},
): { readonly bias?: SiteBias } {
  const operand = node.inputs[input];
  const constant = operand === null || operand === undefined ? undefined : traceConstant(operand);
  if (constant === undefined) return {};
  const { value, chain } = constant;
  return { bias: { value, node, input, chain, scale, included } };
}
