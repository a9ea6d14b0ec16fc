/** Normalizations over the last axis: as one op, fused with the residual sum, or written out. */
import { intAttribute } from '../../../src/attribute.js';
import type { Node, Value } from '../../../src/graph.js';
import { intsOf } from '../../../src/infer/index.js';
import { isFloat } from '../../../src/types.js';
import { rankOf, sizeAt } from '../../../src/value-type.js';
import { operandPairs } from '../../normalize/match.js';
import type { NormDraft } from '../draft.js';
import { graphOf } from '../linear.js';
import type { SiteBias } from '../site.js';
import { traceConstant } from '../weight.js';
import { sumOutput } from './sums.js';
import { origin, sameComputation, scalarBehind } from './trace.js';

/** What an op that normalizes reads where. */
interface NormOp {
  readonly gain: number;
  readonly offset?: number;
}

const OPS: Readonly<Record<string, NormOp>> = {
  LayerNormalization: { gain: 1, offset: 2 },
  RMSNormalization: { gain: 1 },
  SimplifiedLayerNormalization: { gain: 1 },
  'com.microsoft.SimplifiedLayerNormalization': { gain: 1 },
  'com.microsoft.SkipLayerNormalization': { gain: 2, offset: 3 },
  'com.microsoft.SkipSimplifiedLayerNormalization': { gain: 2 },
  'com.microsoft.EmbedLayerNormalization': { gain: 5, offset: 6 },
};

/** The normalization whose last node is `node`; its output is the last value before anything else happens to it. */
export function detectNorm(node: Node): NormDraft | undefined {
  const op = OPS[node.qualifiedOp];
  return op === undefined ? written(node) : fused(node, op);
}

function fused(node: Node, op: NormOp): NormDraft | undefined {
  const sum = sumOutput(node);
  const x = (sum === undefined ? undefined : node.outputs[sum]) ?? node.input(0);
  const y = node.output(0);
  const axis = intAttribute(node, 'axis', -1);
  const rank = rankOf(y) ?? rankOf(x);
  if (axis !== -1 && axis + 1 !== rank) return undefined;
  const gain = vectorAt(node, op.gain);
  if (gain === undefined) return undefined;
  const offset =
    op.offset === undefined || node.inputs[op.offset] == null ? undefined : vectorAt(node, op.offset);
  if (op.offset !== undefined && node.inputs[op.offset] != null && offset === undefined) return undefined;
  return draft(node, x, y, gain, offset, false);
}

interface Vector {
  readonly bias: SiteBias;
  readonly dim: number;
  readonly dtype: NormDraft['dtype'];
}

/** The constant vector that a node reads, as long as the last axis. */
function vectorAt(node: Node, input: number): Vector | undefined {
  const operand = node.inputs[input];
  const constant = operand === null || operand === undefined ? undefined : traceConstant(operand);
  const dim = constant?.dims.at(-1);
  if (constant === undefined || dim === undefined || !isFloat(constant.dtype)) return undefined;
  if (constant.dims.some((size, axis) => size !== 1 && axis !== constant.dims.length - 1)) return undefined;
  const { value, chain, dtype } = constant;
  return { bias: { value, node, input, chain, scale: 1, included: true }, dim, dtype };
}

function draft(
  node: Node,
  x: Value,
  y: Value,
  gain: Vector,
  offset: Vector | undefined,
  offsetGain: boolean,
): NormDraft | undefined {
  if (offset !== undefined && offset.dim !== gain.dim) return undefined;
  const { value, input, chain } = gain.bias;
  return {
    kind: 'norm',
    node,
    graph: graphOf(node),
    dtype: gain.dtype,
    x,
    y,
    gain: gain.bias,
    ...(offset === undefined ? {} : { offset: offset.bias }),
    dim: gain.dim,
    offsetGain,
    weight: {
      value,
      transposed: false,
      scale: 1,
      consumed: gain.bias.node.input(input),
      consumedTransposed: false,
      input,
      chain,
      storage: 'dense',
    },
  };
}

/** From the product with the gain: `gain · normalize(x)`, with the offset's Add behind it where there is one. */
function written(node: Node): NormDraft | undefined {
  if (node.qualifiedOp !== 'Mul') return undefined;
  for (const index of [0, 1]) {
    const normalized = node.input(1 - index);
    const x = normalizedFrom(origin(normalized), sizeAt(node.output(0), -1));
    if (x === undefined) continue;
    const gain = gainAt(node, index);
    if (gain === undefined) continue;
    const offset = offsetBehind(node.output(0), gain.vector.dim);
    const last = offset?.bias.node ?? node;
    return draft(last, x, last.output(0), gain.vector, offset, gain.offsetGain);
  }
  return undefined;
}

function gainAt(
  node: Node,
  index: number,
): { readonly vector: Vector; readonly offsetGain: boolean } | undefined {
  const direct = vectorAt(node, index);
  if (direct !== undefined)
    return direct.dim > 1 || sizeAt(node.output(0), -1) === 1
      ? { vector: direct, offsetGain: false }
      : undefined;
  const sum = origin(node.input(index)).producer;
  if (sum?.qualifiedOp !== 'Add') return undefined;
  for (const at of [0, 1]) {
    const vector = vectorAt(sum, at);
    if (vector !== undefined && vector.dim > 1 && scalarBehind(sum.input(1 - at)) === 1)
      return { vector, offsetGain: true };
  }
  return undefined;
}

function offsetBehind(value: Value, dim: number): Vector | undefined {
  const [use] = value.uses;
  if (value.uses.size !== 1 || use?.kind !== 'node' || use.node.qualifiedOp !== 'Add') return undefined;
  const vector = vectorAt(use.node, 1 - use.index);
  return vector?.dim === dim ? vector : undefined;
}

/** What a value is the normalization of: (x − μ)/σ, or x/√(mean x² + ε). */
function normalizedFrom(value: Value, dim: number | undefined): Value | undefined {
  const node = value.producer;
  if (node === undefined || dim === undefined) return undefined;
  const halves =
    node.qualifiedOp === 'Div'
      ? [[node.input(0), node.input(1)] as const].map(([top, bottom]) => ({ top, deviation: rootOf(bottom) }))
      : node.qualifiedOp === 'Mul'
        ? operandPairs(node).map(([top, inverse]) => ({ top, deviation: inverseRootOf(inverse) }))
        : [];
  for (const { top, deviation } of halves) {
    const square = deviation === undefined ? undefined : meanOf(deviation, dim);
    const squared = square === undefined ? undefined : squareOf(square);
    if (squared === undefined || !sameComputation(squared, top)) continue;
    const centred = origin(top).producer;
    if (centred?.qualifiedOp !== 'Sub') return origin(top);
    const mean = meanOf(centred.input(1), dim);
    return mean !== undefined && origin(mean) === origin(centred.input(0)) ? origin(mean) : origin(top);
  }
  return undefined;
}

/** The v of √(v + ε), or of (v + ε)^½. */
function rootOf(value: Value): Value | undefined {
  const node = origin(value).producer;
  if (node?.qualifiedOp === 'Sqrt' || (node?.qualifiedOp === 'Pow' && scalarBehind(node.input(1)) === 0.5))
    return withoutEpsilon(node.input(0));
  return undefined;
}

/** The v of 1/√(v + ε). */
function inverseRootOf(value: Value): Value | undefined {
  const node = origin(value).producer;
  if (node?.qualifiedOp === 'Reciprocal') return rootOf(node.input(0));
  if (node?.qualifiedOp === 'Div' && scalarBehind(node.input(0)) === 1) return rootOf(node.input(1));
  if (node?.qualifiedOp === 'Pow' && scalarBehind(node.input(1)) === -0.5)
    return withoutEpsilon(node.input(0));
  return undefined;
}

function withoutEpsilon(value: Value): Value | undefined {
  const node = origin(value).producer;
  if (node?.qualifiedOp !== 'Add') return value;
  return operandPairs(node).find(([, epsilon]) => scalarBehind(epsilon) !== undefined)?.[0];
}

/** What a mean over the last axis is of. */
function meanOf(value: Value, dim: number): Value | undefined {
  const node = origin(value).producer;
  if (node?.qualifiedOp !== 'ReduceMean') return undefined;
  const attribute = node.attributes.get('axes');
  const input = node.inputs[1];
  const axes = attribute?.type === 'ints' ? attribute.value : input == null ? undefined : intsOf(input);
  const of = node.input(0);
  const rank = rankOf(of);
  const last =
    axes?.length === 1 && (axes[0] === -1n || (rank !== undefined && axes[0] === BigInt(rank - 1)));
  return last && intAttribute(node, 'keepdims', 1) === 1 && sizeAt(of, -1) === dim ? of : undefined;
}

/** The v of v². */
function squareOf(value: Value): Value | undefined {
  const node = origin(value).producer;
  if (node?.qualifiedOp === 'Pow' && scalarBehind(node.input(1)) === 2) return node.input(0);
  if (node?.qualifiedOp === 'Mul' && origin(node.input(0)) === origin(node.input(1))) return node.input(0);
  return undefined;
}

/**
 * The nodes from `x` to `y` of a normalization, in order of execution: what computes it again for another value.
 * Constants and their chains are left out.
 */
export function normNodes({ node, x }: Pick<NormDraft, 'node' | 'x'>): Node[] {
  const nodes: Node[] = [];
  const seen = new Set<Node>();
  const visit = (value: Value): boolean => {
    if (value === x) return true;
    const producer = value.producer;
    if (producer === undefined) return false;
    if (seen.has(producer)) return nodes.includes(producer);
    seen.add(producer);
    const dependent = producer.inputs.map((input) => input !== null && visit(input)).some(Boolean);
    if (dependent) nodes.push(producer);
    return dependent;
  };
  if (OPS[node.qualifiedOp] !== undefined) return [node];
  visit(node.output(0));
  return nodes;
}
