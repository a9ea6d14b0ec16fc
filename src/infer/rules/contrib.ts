/** Contrib operators of ONNX Runtime (`com.microsoft`) and the gradient operators of its training graphs. */
import { addDims, divideDims, floorDivDims, mulDims, sameDim } from '../../dims.js';
import type { Dim, Shape } from '../../types.js';
import { type Call, type Rule, type Rules, unknownShape } from '../call.js';
import { broadcastShapes, matmulShape, unifyDims, withDim } from '../shapes.js';
import { convolutions } from './conv.js';
import { linear } from './linear.js';
import { layerNormalization } from './norm.js';

const same: Rule = (c) => c.set(0, c.dtype(0), c.shape(0));
const quotient = (a: Dim, b: Dim): Dim => divideDims(a, b) ?? floorDivDims(a, b);

/** (input, skip, …) → output, mean, inverse deviation, sum. */
const skipNormalization: Rule = (c) => {
  const shape = c.shape(0);
  c.set(0, c.dtype(0), shape);
  const rows = shape?.map((dim, i) => (i === shape.length - 1 ? 1 : dim)) ?? null;
  c.set(1, 'float32', rows);
  c.set(2, 'float32', rows);
  c.set(3, c.dtype(0), shape);
};

/** transBatch moves the first axis to just before the last but one; trans swaps the last two. */
function fusedOperand(c: Call, index: number, side: 'A' | 'B'): Shape | null {
  let shape = c.shape(index);
  if (shape === null || shape.length < 2) return shape;
  if (c.int(`transBatch${side}`, 0) !== 0 && shape.length > 2) {
    const [first = null, ...rest] = shape;
    shape = [...rest.slice(0, -1), first, ...rest.slice(-1)];
  }
  if (c.int(`trans${side}`, 0) !== 0) shape = [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!];
  return shape;
}

const fusedMatMul: Rule = (c) => {
  c.set(0, c.dtype(0) ?? c.dtype(1), matmulShape(c, fusedOperand(c, 0, 'A'), fusedOperand(c, 1, 'B')));
};

/** Packed QKV: [batch, seq, hidden] × [hidden, q + k + v] → [batch, seq, v], present [2, batch, heads, total, size]. */
const packedAttention =
  (past: number, dtypeFrom: number): Rule =>
  (c) => {
    const [batch = null, sequence = null] = c.shape(0) ?? [];
    const sizes = c.ints('qkv_hidden_sizes');
    const width = sizes?.[2] ?? quotient(c.shape(1)?.[1] ?? null, 3);
    const heads = c.int('num_heads', 1);
    const rank = c.rank(0) ?? 3;
    const dtype = c.dtype(dtypeFrom);
    c.set(0, dtype, rank === 2 ? [batch, width] : [batch, sequence, width]);
    const before = c.has(past) ? (c.shape(past)?.[3] ?? null) : 0;
    const shared = c.int('past_present_share_buffer', 0) !== 0;
    c.set(1, dtype, [2, batch, heads, shared ? before : addDims(before, sequence), quotient(width, heads)]);
  };

const multiHeadAttention: Rule = (c) => {
  const query = c.shape(0);
  const key = c.shape(1);
  const value = c.shape(2);
  const heads = c.int('num_heads', 1);
  const dtype = c.dtype(0);
  const [batch = null, sequence = null] = query ?? [];
  if (query === null) return;
  // Query alone is packed [batch, seq, heads, 3, size]; with a key of rank 5, keys and values are packed.
  const packed = query.length === 5;
  const size: Dim = packed ? (query[4] ?? null) : quotient(query[2] ?? null, heads);
  const vWidth: Dim =
    packed || value === null
      ? mulDims(heads, size)
      : value.length === 4
        ? mulDims(value[1] ?? null, value[3] ?? null)
        : (value[2] ?? null);
  const own: Dim = packed
    ? sequence
    : key === null
      ? null
      : key.length === 4
        ? (key[2] ?? null)
        : (key[1] ?? null);
  c.set(0, dtype, [batch, sequence, vWidth]);
  const before = c.has(6) ? (c.shape(6)?.[2] ?? null) : 0;
  const total = addDims(before, own);
  c.set(1, dtype, [batch, heads, total, size]);
  c.set(2, dtype, [batch, heads, total, quotient(vWidth, heads)]);
  c.set(3, c.int('output_qk', 0) === 0 ? dtype : 'float32', [batch, heads, sequence, total]);
};

const groupQueryAttention: Rule = (c) => {
  const query = c.shape(0);
  const heads = c.int('num_heads', 1);
  const kvHeads = c.int('kv_num_heads', heads);
  const [batch = null, sequence = null, width = null] = query ?? [];
  // Without key and value the query holds all three side by side.
  const size = quotient(width, c.has(1) ? heads : heads + 2 * kvHeads);
  c.set(0, c.dtype(0), [batch, sequence, mulDims(heads, size)]);
  const past = c.shape(3);
  const before = c.has(3) ? (past?.[2] ?? null) : 0;
  // The total length input decides; a cache that holds it already is shared.
  const total = c.dims(6)?.[0] ?? null;
  const length = total ?? (c.has(3) ? null : addDims(before, sequence));
  const present = [batch, kvHeads, length !== null && sameDim(length, before) ? before : length, size];
  c.set(1, c.dtype(3) ?? c.dtype(0), present);
  c.set(2, c.dtype(4) ?? c.dtype(0), present);
  c.set(3, c.dtype(0), [batch, heads, sequence, length]);
};

const embedLayerNormalization: Rule = (c) => {
  const [batch = null, sequence = null] = c.shape(0) ?? [];
  const hidden = c.shape(2)?.[1] ?? null;
  c.set(0, c.dtype(2), [batch, sequence, hidden]);
  c.set(1, 'int32', [batch]);
  c.set(2, c.dtype(2), [batch, sequence, hidden]);
};

const { Gemm: gemm = same } = linear;
const { Conv: conv = same } = convolutions;

/** A [..., K] × quantised B of N columns. */
const quantisedMatMul: Rule = (c) => {
  const shape = c.shape(0);
  if (shape === null) return c.set(0, c.dtype(0), null);
  unifyDims(c, shape.at(-1) ?? null, c.int('K') ?? null, 'Inner dimensions');
  c.set(0, c.dtype(0), [...shape.slice(0, -1), c.int('N') ?? null]);
};

/** (A, scale, zero point, B, scale, zero point, …) with A and B broadcast. */
const quantizedBinary: Rule = (c) => c.set(0, c.dtype(0), broadcastShapes(c, c.shape(0), c.shape(3)));

const dropout: Rule = (c) => {
  c.set(0, c.dtype(0), c.shape(0));
  c.set(1, 'bool', c.shape(0));
};

function names(rule: Rule, ...ops: string[]): Rules {
  return Object.fromEntries(ops.map((op) => [op, rule]));
}

export const contrib: Rules = {
  ...names(
    same,
    'BiasAdd',
    'BiasGelu',
    'BiasSoftmax',
    'FastGelu',
    'Gelu',
    'QuickGelu',
    'Inverse',
    'GroupNorm',
    'Trilu',
    'RotaryEmbedding',
    'GeluGrad',
    'FastGeluGrad',
    'QuickGeluGrad',
    'BiasGeluGrad_dX',
    'BiasFastGeluGrad_dX',
    'ReluGrad',
    'SigmoidGrad',
    'TanhGrad',
    'SoftmaxGrad',
    'SoftmaxGrad_13',
    'LogSoftmaxGrad',
    'LogSoftmaxGrad_13',
    'DropoutGrad',
    'QLinearSigmoid',
    'QLinearLeakyRelu',
    'QLinearSoftmax',
    'BitmaskDropout',
  ),
  ...names(skipNormalization, 'SkipLayerNormalization', 'SkipSimplifiedLayerNormalization'),
  ...names(layerNormalization, 'SimplifiedLayerNormalization', 'LayerNormalization'),
  ...names(fusedMatMul, 'FusedMatMul', 'TransposeMatMul', 'FusedMatMulActivation'),
  ...names(gemm, 'FusedGemm'),
  ...names(conv, 'FusedConv'),
  ...names(quantisedMatMul, 'MatMulNBits', 'MatMulBnb4'),
  ...names(dropout, 'BiasDropout'),
  BiasSplitGelu: (c) => {
    const shape = c.shape(0);
    c.set(
      0,
      c.dtype(0),
      shape === null ? null : withDim(shape, shape.length - 1, quotient(shape.at(-1) ?? null, 2)),
    );
  },
  Attention: packedAttention(4, 0),
  DecoderMaskedSelfAttention: packedAttention(4, 0),
  PackedAttention: packedAttention(4, 0),
  QAttention: packedAttention(8, 3),
  MultiHeadAttention: multiHeadAttention,
  GroupQueryAttention: groupQueryAttention,
  EmbedLayerNormalization: embedLayerNormalization,
  GemmFastGelu: (c) => c.set(0, c.dtype(0), matmulShape(c, c.shape(0), c.shape(1))),
  MatMulIntegerToFloat: (c) => c.set(0, c.dtype(2), matmulShape(c, c.shape(0), c.shape(1))),
  DynamicQuantizeMatMul: (c) => c.set(0, 'float32', matmulShape(c, c.shape(0), c.shape(1))),
  QuantizeLinear: (c) => c.set(0, c.dtype(2) ?? 'uint8', c.shape(0)),
  DequantizeLinear: (c) => c.set(0, c.dtype(1), c.shape(0)),
  QGemm: (c) => {
    const [a, b] = [c.shape(0), c.shape(3)];
    const m = a?.[c.int('transA', 0) !== 0 ? 1 : 0] ?? null;
    const n = b?.[c.int('transB', 0) !== 0 ? 0 : 1] ?? null;
    c.set(0, c.has(8) ? c.dtype(8) : 'float32', [m, n]);
  },
  QLinearAdd: quantizedBinary,
  QLinearMul: quantizedBinary,
  GatherND: (c) => {
    const data = c.shape(0);
    const indices = c.shape(1);
    const depth = indices?.at(-1);
    const known = data !== null && indices !== null && typeof depth === 'number';
    c.set(0, c.dtype(0), known ? [...indices.slice(0, -1), ...data.slice(depth)] : null);
  },
  GatherBlockQuantized: (c) => {
    const data = c.shape(0);
    const indices = c.shape(1);
    if (data === null || indices === null) return c.set(0, c.dtype(2), null);
    const axis = c.axis(c.int('gather_axis', 0), data.length);
    // Bytes hold several elements of fewer bits along the last axis.
    const packed = c.dtype(0) === 'uint8' ? 8 / c.int('bits', 4) : 1;
    const wide = withDim(data, data.length - 1, mulDims(data.at(-1) ?? null, packed));
    c.set(0, c.dtype(2), [...wide.slice(0, axis), ...indices, ...wide.slice(axis + 1)]);
  },
  RelativePositionBias: (c) =>
    c.set(0, c.dtype(0), [1, c.shape(0)?.[1] ?? null, c.dims(1)?.[0] ?? null, c.dims(2)?.[0] ?? null]),
  NGramRepeatBlock: (c) => c.set(0, c.dtype(1), c.shape(1)),
  SoftmaxCrossEntropyLossInternal: (c) => {
    c.set(0, c.dtype(0), c.text('reduction', 'mean') === 'none' ? c.shape(1) : []);
    c.set(1, c.dtype(0), c.shape(0));
  },
  SoftmaxCrossEntropyLossGrad: (c) => c.set(0, c.dtype(1), c.shape(1)),
  SoftmaxCrossEntropyLossInternalGrad: (c) => c.set(0, c.dtype(1), c.shape(1)),
  InPlaceAccumulatorV2: (c) => {
    c.set(0, 'bool', [1]);
    c.set(1, c.dtype(0), c.shape(0));
  },
  LayerNormalizationGrad: (c) => {
    c.set(0, c.dtype(1), c.shape(1));
    c.set(1, c.dtype(2), c.shape(2));
    c.set(2, c.dtype(2), c.shape(2));
  },
  GatherGrad: (c) => {
    const target = c.dims(0);
    const [rank] = c.shape(0) ?? [];
    c.set(0, c.dtype(2), target ?? (typeof rank === 'number' ? unknownShape(rank) : null));
  },
};
