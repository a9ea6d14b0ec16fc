/** Attention in standard ops: a Softmax over scores of a product, which weighs values. */
import { floatAttribute, intAttribute } from '../../../src/attribute.js';
import type { Node, Value } from '../../../src/graph.js';
import { dtypeOf, rankOf, sizeAt } from '../../../src/value-type.js';
import { graphOf } from '../linear.js';
import type { AttentionSite, LinearRole, LinearSite } from '../site.js';
import { feeding, type Linears, readingOf, wholeOf } from './linears.js';
import { isConstant, origin, passes, type Reading, scaling, unflattened } from './trace.js';

/** Attention as one op, with the inputs that hold projected queries, keys and values. No site: nothing can join inside. */
export const FUSED_ATTENTION: Readonly<Record<string, readonly (LinearRole | undefined)[]>> = {
  Attention: ['query', 'key', 'value'],
  'com.microsoft.MultiHeadAttention': ['query', 'key', 'value'],
  'com.microsoft.GroupQueryAttention': ['query', 'key', 'value'],
  'com.microsoft.DecoderMaskedMultiHeadAttention': ['query', 'key', 'value'],
  'com.microsoft.PackedMultiHeadAttention': ['query', 'key', 'value'],
  'com.microsoft.SparseAttention': ['query', 'key', 'value'],
  'com.microsoft.Attention': [],
  'com.microsoft.QAttention': [],
  'com.microsoft.PackedAttention': [],
  'com.microsoft.LongformerAttention': [],
};

/** The projections around an attention, whether or not it is a site. */
export interface AttentionCore {
  /** The Softmax, or the fused op: a block that holds it is an attention block. */
  readonly node: Node;
  /** Output of the product with the values, or of the fused op. */
  readonly output: Value;
  readonly query?: LinearSite;
  readonly key?: LinearSite;
  readonly value?: LinearSite;
  readonly site?: Omit<AttentionSite, 'path' | 'confidence' | 'source' | 'guesses' | 'callOf'>;
}

/** The attention that `node`, a Softmax or a fused op, is the middle of. */
export function detectAttention(node: Node, linears: Linears): AttentionCore | undefined {
  const roles = FUSED_ATTENTION[node.qualifiedOp];
  if (roles !== undefined) return fused(node, roles, linears);
  return node.qualifiedOp === 'Softmax' ? written(node, linears) : undefined;
}

function fused(node: Node, roles: readonly (LinearRole | undefined)[], linears: Linears): AttentionCore {
  const found: Partial<Record<LinearRole, LinearSite>> = {};
  for (const [index, role] of roles.entries()) {
    const input = node.inputs[index];
    const [site] = input === null || input === undefined ? [] : feeding(input, linears);
    if (role !== undefined && site !== undefined) found[role] = site;
  }
  const own = linears.byNode.get(node);
  if (own !== undefined) {
    const [query, key, value] = linears.parts.get(own.path) ?? [own, own, own];
    Object.assign(found, { query, key, value });
  }
  return { node, output: node.output(0), ...projections(found) };
}

function projections(found: Partial<Record<LinearRole, LinearSite>>): Partial<AttentionCore> {
  const { query, key, value } = found;
  return {
    ...(query === undefined ? {} : { query }),
    ...(key === undefined ? {} : { key }),
    ...(value === undefined ? {} : { value }),
  };
}

/** `com.microsoft.FusedMatMul` transposes and scales as it multiplies. */
const PRODUCTS = new Set(['MatMul', 'com.microsoft.FusedMatMul', 'com.microsoft.TransposeMatMul']);

function written(softmax: Node, linears: Linears): AttentionCore | undefined {
  const rank = rankOf(softmax.output(0));
  const axis = intAttribute(softmax, 'axis', -1);
  if (axis !== -1 && (rank === undefined || axis !== rank - 1)) return undefined;
  const scores = scoresBehind(softmax.input(0));
  const product = scores === undefined ? undefined : weighed(softmax.output(0));
  if (scores === undefined || product === undefined) return undefined;
  const values = product.node.input(1);
  if (isConstant(values)) return undefined;
  const queries = scores.product.input(0);
  const keys = scores.product.input(1);
  const headDim = sizeAt(queries, -1);
  const sides = [queries, keys, values];
  const flat = sides.every((side) => rankOf(side) === 3);
  const heads = flat
    ? flattenedHeads(queries, headDim)
    : (sizeAt(queries, 1) ?? sizeAt(softmax.output(0), 1));
  const width = heads === undefined || headDim === undefined ? undefined : heads * headDim;
  const query = projection(queries, width, linears);
  const key = projection(keys, undefined, linears);
  const value = projection(values, undefined, linears);
  const core = {
    node: softmax,
    output: product.node.output(0),
    ...projections({
      ...(query === undefined ? {} : { query }),
      ...(key === undefined ? {} : { key }),
      ...(value === undefined ? {} : { value }),
    }),
  };
  const dtype = dtypeOf(queries) ?? query?.dtype;
  const graph = softmax.graph;
  const transposed = intAttribute(scores.product, 'transA', 0) !== 0;
  if (
    heads === undefined ||
    headDim === undefined ||
    dtype === undefined ||
    graph === undefined ||
    transposed
  )
    return core;
  // Whoever puts keys in front has to know the layout: [batch, heads, time, head] or [batch·heads, time, head] on all sides.
  if (!flat && sides.some((side) => rankOf(side) !== 4)) return core;
  const valueDim = sizeAt(values, -1);
  if (valueDim !== undefined && valueDim !== headDim) return core;
  const chain = keyChain(keys, heads);
  const owned = key === undefined ? undefined : key.outDim / headDim;
  const keyValueHeads = chain.heads ?? (flat ? heads : (sizeAt(keys, 1) ?? heads));
  // A projection of other width than the heads that were counted: keys are repeated in a way unknown here.
  const packed = key === query || key === value;
  if (owned !== undefined && !packed && owned !== keyValueHeads) return core;
  const hidden = query === undefined ? undefined : hiddenOf(query, linears);
  return {
    ...core,
    site: {
      kind: 'attention',
      node: softmax,
      graph: graphOf(softmax),
      dtype,
      query: { node: scores.product, index: 0 },
      softmax,
      product,
      scale: scores.scale,
      ...(scores.cap === undefined ? {} : { cap: scores.cap }),
      keyScale: chain.scale,
      heads,
      keyValueHeads,
      headDim,
      cross: isCross(query, key, keys, linears),
      ...(hidden === undefined ? {} : { hidden }),
    },
  };
}

interface Scores {
  readonly product: Node;
  readonly scale: number;
  /** c of c·tanh(scale·q kᵀ / c). */
  readonly cap?: number;
}

/**
 * The product of queries and keys behind masks, casts, scalar factors and a soft cap. Undefined where two products are
 * added.
 */
function scoresBehind(value: Value, depth = 12): Scores | undefined {
  const node = value.producer;
  if (node === undefined || depth === 0) return undefined;
  if (PRODUCTS.has(node.qualifiedOp)) {
    if (isConstant(node.input(0)) || isConstant(node.input(1))) return undefined;
    return { product: node, scale: floatAttribute(node, 'alpha', 1) };
  }
  const scaled = scaling(node);
  if (scaled !== undefined) {
    const inner = scoresBehind(scaled.input, depth - 1);
    if (inner === undefined) return undefined;
    const { cap } = inner;
    // f·c·tanh(s/c) = (f·c)·tanh(f·s/(f·c))
    return {
      product: inner.product,
      scale: inner.scale * scaled.factor,
      ...(cap === undefined ? {} : { cap: cap * scaled.factor }),
    };
  }
  if (node.qualifiedOp === 'Tanh') {
    const inner = scoresBehind(node.input(0), depth - 1);
    return inner === undefined || inner.cap !== undefined ? undefined : { ...inner, cap: 1 };
  }
  if (passes(node, 'elements') || splitsHeads(node)) return scoresBehind(node.input(0), depth - 1);
  const operands = MASKS[node.qualifiedOp]?.(node);
  const found = (operands ?? [])
    .map((operand) => scoresBehind(operand, depth - 1))
    .filter((one) => one !== undefined);
  return found.length === 1 ? found[0] : undefined;
}

/** Operands among which the scores are, of ops that put a mask or a bias on. */
const MASKS: Readonly<Record<string, (node: Node) => readonly Value[]>> = {
  Add: (node) => [node.input(0), node.input(1)],
  Sub: (node) => [node.input(0)],
  Max: (node) => node.inputs.filter((input) => input !== null),
  Where: (node) => [node.input(1), node.input(2)],
};

/** The product with the values that reads the attention weights, through casts, dropout and guards against NaN. */
function weighed(weights: Value): Reading | undefined {
  for (const use of weights.uses) {
    if (use.kind !== 'node') continue;
    const { node, index } = use;
    if (PRODUCTS.has(node.qualifiedOp) && index === 0) return { node, index: 1 };
    const on =
      ((passes(node, 'elements') || splitsHeads(node)) && index === 0) ||
      (node.qualifiedOp === 'Where' && index > 0);
    const found = on ? weighed(node.output(0)) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Between [batch·heads, time, keys] and [batch, heads, time, keys], where a mask wants the other one. */
function splitsHeads(node: Node): boolean {
  if (node.qualifiedOp !== 'Reshape') return false;
  const [before, after] = [rankOf(node.input(0)), rankOf(node.output(0))];
  return (before === 3 && after === 4) || (before === 4 && after === 3);
}

/** The heads of queries [batch·heads, time, head]: of the tensor with a batch axis, or a whole width, that they were before. */
function flattenedHeads(queries: Value, headDim: number | undefined): number | undefined {
  let at = queries;
  for (let node = at.producer; node !== undefined && headDim !== undefined; node = at.producer) {
    const before = scaling(node)?.input ?? (passes(node, 'layout') ? node.input(0) : undefined);
    if (before === undefined) return undefined;
    if (rankOf(before) === 4) return sizeAt(before, 1);
    const width = sizeAt(before, -1);
    if (width !== undefined && width !== headDim && sizeAt(at, -1) === headDim) return width / headDim;
    at = before;
  }
  return undefined;
}

/** The projection that a side of attention comes from: the only one, or the only one of the right width. */
function projection(side: Value, width: number | undefined, linears: Linears): LinearSite | undefined {
  const found = feeding(side, linears);
  if (found.length === 1) return found[0];
  const fitting = found.filter((site) => site.outDim === width);
  return fitting.length === 1 ? fitting[0] : undefined;
}

/** Factors on the keys, and the heads they have before they are repeated. */
function keyChain(
  keys: Value,
  heads: number,
): { readonly scale: number; readonly heads: number | undefined } {
  let scale = 1;
  let count: number | undefined;
  let at = keys;
  for (let node = at.producer; node !== undefined; node = at.producer) {
    const scaled = scaling(node);
    if (scaled !== undefined) {
      scale *= scaled.factor;
      at = scaled.input;
    } else if (passes(node, 'layout')) at = node.input(0);
    else if (node.qualifiedOp === 'Expand') {
      // [batch, heads, 1, time, head] to [batch, heads, repeats, time, head].
      const [before, repeats] = [sizeAt(node.input(0), 1), sizeAt(node.output(0), 2)];
      if (rankOf(node.input(0)) === 5 && before !== undefined && before * (repeats ?? 0) === heads)
        count = before;
      at = node.input(0);
    } else break;
  }
  return { scale, heads: count };
}

function hiddenOf(query: LinearSite, linears: Linears): Reading | undefined {
  const whole = wholeOf(query, linears);
  if (whole.xAxis !== -1) return undefined;
  const reading = unflattened(readingOf(whole), 3, whole.inDim);
  return rankOf(reading.node.input(reading.index)) === 3 ? reading : undefined;
}

/** Keys of another sequence: projected from other hidden states than the queries, or fed as they are. */
function isCross(
  query: LinearSite | undefined,
  key: LinearSite | undefined,
  keys: Value,
  linears: Linears,
): boolean {
  if (query !== undefined && key !== undefined)
    return origin(wholeOf(query, linears).x, 'order') !== origin(wholeOf(key, linears).x, 'order');
  return key === undefined && origin(keys, 'layout').producer === undefined;
}
