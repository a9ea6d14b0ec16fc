/** Single operators: the symbolic shape inferred while building, at given sizes, is what ONNX Runtime computes. */
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { evaluateDim } from '../../src/dims.js';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, formatType, type Shape, tensorType } from '../../src/types.js';

const SIZES = new Map([
  ['n', 2],
  ['c', 4],
  ['h', 9],
  ['w', 7],
  ['s', 5],
  ['p', 3],
]);

type In = readonly [dtype: DType, shape: Shape];
type Build = (b: Builder, ...values: Value[]) => Value | Value[];

interface Feed {
  readonly dims: number[];
  readonly dtype: DType;
}

function feedTensor({ dims, dtype }: Feed): ort.Tensor {
  const count = dims.reduce((a, b) => a * b, 1);
  const fill = (i: number) => ((i * 7) % 5) / 4 + 0.1;
  switch (dtype) {
    case 'int64':
      return new ort.Tensor('int64', new BigInt64Array(count).fill(1n), dims);
    case 'int32':
      return new ort.Tensor('int32', new Int32Array(count).fill(1), dims);
    case 'uint8':
      return new ort.Tensor('uint8', new Uint8Array(count).fill(3), dims);
    case 'bool':
      return new ort.Tensor('bool', new Uint8Array(count).fill(1), dims);
    default:
      return new ort.Tensor(
        'float32',
        Float32Array.from({ length: count }, (_, i) => fill(i)),
        dims,
      );
  }
}

async function check(inputs: readonly In[], build: Build, opset: number): Promise<void> {
  const graph = new Graph();
  graph.name = 'g';
  const model = new Model(graph);
  model.irVersion = opset >= 23 ? 11 : 9;
  model.opsets.set('', opset);
  const values = inputs.map(([dtype, shape], i) =>
    graph.addInput(new Value({ name: `x${i}`, type: tensorType(dtype, shape) })),
  );
  const b = new Builder(model);
  const built = build(b, ...values);
  const results = Array.isArray(built) ? built : [built];
  for (const value of b.initializers) graph.addInitializer(value);
  for (const node of b.nodes) graph.append(node);
  // Output types are left out, so that the runtime is not told what to expect.
  const types = results.map((value) => value.type);
  for (const [i, value] of results.entries()) {
    const rank = types[i]?.kind === 'tensor' ? (types[i].shape?.length ?? 0) : 0;
    const dtype = types[i]?.kind === 'tensor' ? types[i].dtype : 'float32';
    graph.addOutput(`y${i}`, value).type = tensorType(dtype, new Array<null>(rank).fill(null));
  }
  const session = await ort.InferenceSession.create(encodeModel(model), {
    logSeverityLevel: 4,
    graphOptimizationLevel: 'disabled',
  });
  const feeds = Object.fromEntries(
    inputs.map(([dtype, shape], i) => [
      `x${i}`,
      feedTensor({ dtype, dims: shape.map((dim) => evaluateDim(dim, SIZES)!) }),
    ]),
  );
  const found = await session.run(feeds);
  for (const [i, type] of types.entries()) {
    const actual = found[`y${i}`]!;
    const shape = type?.kind === 'tensor' ? type.shape : null;
    expect(
      shape?.map((dim) => evaluateDim(dim, SIZES)),
      `output ${i}: ${formatType(type)}`,
    ).toEqual([...actual.dims]);
    expect(type?.kind === 'tensor' ? type.dtype : '').toBe(actual.type);
  }
}

const image: In = ['float32', ['n', 4, 'h', 'w']];
const cases: readonly [string, readonly In[], Build, number?][] = [
  [
    'Conv',
    [image, ['float32', [6, 4, 3, 3]]],
    (b, x, w) => b.op.Conv(x!, w!, null, { pads: [1, 0, 1, 2], strides: [2, 1] }),
  ],
  [
    'Conv dilated',
    [image, ['float32', [6, 2, 3, 2]]],
    (b, x, w) => b.op.Conv(x!, w!, null, { group: 2, dilations: [2, 3] }),
  ],
  [
    'Conv SAME_UPPER',
    [image, ['float32', [6, 4, 3, 3]]],
    (b, x, w) => b.op.Conv(x!, w!, null, { auto_pad: 'SAME_UPPER', strides: [2, 2] }),
  ],
  [
    'ConvTranspose',
    [image, ['float32', [4, 3, 3, 3]]],
    (b, x, w) =>
      b.op.ConvTranspose(x!, w!, null, {
        strides: [2, 2],
        pads: [1, 1, 1, 1],
        output_padding: [1, 1],
        group: 2,
      }),
  ],
  [
    'MaxPool with ceil',
    [image],
    (b, x) => b.op.MaxPool(x!, { kernel_shape: [2, 3], strides: [2, 2], ceil_mode: 1 }, 2),
  ],
  ['AveragePool', [image], (b, x) => b.op.AveragePool(x!, { kernel_shape: [3, 3], pads: [1, 1, 1, 1] })],
  ['GlobalAveragePool', [image], (b, x) => b.op.GlobalAveragePool(x!)],
  ['BatchNormalization', [image, ['float32', [4]]], (b, x, v) => b.op.BatchNormalization(x!, v!, v!, v!, v!)],
  [
    'Resize by scale',
    [image],
    (b, x) => b.op.Resize(x!, null, b.constant({ dtype: 'float32', dims: [4], data: bytes([1, 1, 2, 2]) })),
  ],
  [
    'Resize by a scale whose product rounds up in float32',
    [['float32', [1, 1, 4, 5]]],
    (b, x) =>
      b.op.Resize(x!, null, b.constant({ dtype: 'float32', dims: [4], data: bytes([1, 1, 1.3, 2.6]) })),
  ],
  ['Resize by size', [image], (b, x) => b.op.Resize(x!, null, null, [2, 4, 5, 6])],
  ['DepthToSpace', [image], (b, x) => b.op.DepthToSpace(x!, { blocksize: 2 })],
  [
    'Einsum',
    [
      ['float32', ['n', 's', 8]],
      ['float32', [8, 3]],
    ],
    (b, x, y) => b.op.Einsum([x!, y!], { equation: 'bsk,kj->jbs' }),
  ],
  [
    'Einsum with ellipsis',
    [
      ['float32', ['n', 'c', 's', 8]],
      ['float32', ['p', 8]],
    ],
    (b, x, y) => b.op.Einsum([x!, y!], { equation: '...sk,pk->...sp' }),
  ],
  [
    'Einsum without arrow',
    [
      ['float32', ['n', 's']],
      ['float32', ['s', 'p']],
    ],
    (b, x, y) => b.op.Einsum([x!, y!], { equation: 'ij,jk' }),
  ],
  [
    'LSTM',
    [
      ['float32', ['s', 'n', 6]],
      ['float32', [2, 20, 6]],
      ['float32', [2, 20, 5]],
    ],
    (b, x, w, r) =>
      b.op.LSTM(x!, w!, r!, null, null, null, null, null, { hidden_size: 5, direction: 'bidirectional' }, 3),
  ],
  [
    'GRU',
    [
      ['float32', ['s', 'n', 6]],
      ['float32', [1, 15, 6]],
      ['float32', [1, 15, 5]],
    ],
    (b, x, w, r) => b.op.GRU(x!, w!, r!, null, null, null, { hidden_size: 5 }, 2),
  ],
  ['TopK', [['float32', ['n', 's']]], (b, x) => b.op.TopK(x!, [2], { axis: 1 })],
  ['OneHot', [['int64', ['n', 's']]], (b, x) => b.op.OneHot(x!, 6n, [0, 1], { axis: 1 })],
  [
    'GatherND',
    [
      ['float32', ['n', 's', 6]],
      ['int64', ['n', 3, 1]],
    ],
    (b, x, i) => b.op.GatherND(x!, i!, { batch_dims: 1 }),
  ],
  [
    'GatherElements',
    [
      ['float32', ['n', 's']],
      ['int64', ['n', 2]],
    ],
    (b, x, i) => b.op.GatherElements(x!, i!, { axis: 1 }),
  ],
  [
    'ScatterElements',
    [
      ['float32', ['n', 's']],
      ['int64', ['n', 2]],
      ['float32', ['n', 2]],
    ],
    (b, x, i, u) => b.op.ScatterElements(x!, i!, u!, { axis: 1 }),
  ],
  ['Tile', [['float32', ['n', 's']]], (b, x) => b.op.Tile(x!, [2, 3])],
  ['Pad', [['float32', ['n', 's']]], (b, x) => b.op.Pad(x!, [0, 1, 0, 2], 0.5)],
  [
    'MaxPool with ceil whose last window would start in the padding',
    [['float32', ['n', 'c', 'c']]],
    (b, x) => b.op.MaxPool(x!, { kernel_shape: [1], strides: [2], ceil_mode: 1 }),
  ],
  [
    'Slice with indices that cross',
    [['float32', ['c', 'p', 'n', 's']]],
    (b, x) => b.op.Slice(x!, [-1, 5, -2, 3], [1, 2n ** 63n - 1n, 7, -4], [0, 1, 2, 3]),
  ],
  [
    'Slice from far before the axis',
    [['float32', ['p', 's']]],
    (b, x) => b.op.Slice(x!, [-(2n ** 63n) + 1n, 0], [-1, -(2n ** 63n) + 1n], [0, 1], [2, 1]),
  ],
  [
    'Slice backwards from before the axis and to the largest integer',
    [['float32', [1, 3]]],
    (b, x) => b.op.Slice(x!, [-2, 1], [-2, 2n ** 63n - 1n], [0, 1], [-2, -1]),
  ],
  [
    'Range whose start is behind its limit',
    [['float32', ['n', 's']]],
    (b, x) => b.op.Range(4, b.op.Gather(b.op.Shape(x!), 0), 1),
  ],
  ['Slice backwards', [['float32', ['n', 's']]], (b, x) => b.op.Slice(x!, [-1], [-(2n ** 62n)], [1], [-2])],
  [
    'Slice to symbol',
    [
      ['float32', [8, 6]],
      ['float32', ['s']],
    ],
    (b, x, y) => b.op.Slice(x!, [0], b.op.Shape(y!), [0]),
  ],
  [
    'Slice window',
    [
      ['float32', [9, 6]],
      ['float32', ['s', 'p']],
    ],
    (b, x, y) =>
      b.op.Slice(
        x!,
        b.op.Shape(y!, { start: 1 }),
        b.op.Add(b.op.Shape(y!, { start: 1 }), b.op.Shape(y!, { end: 1 })),
        [0],
      ),
  ],
  [
    'Range of a dimension',
    [['float32', ['s', 'p']]],
    (b, x) =>
      b.op.Range(b.op.Squeeze(b.op.Shape(x!, { start: 1 })), b.op.Squeeze(b.op.Shape(x!, { end: 1 })), 1n),
  ],
  ['Reshape with 0 and −1', [['float32', ['n', 's', 6]]], (b, x) => b.op.Reshape(x!, [0, -1, 2])],
  ['Reshape merging', [['float32', ['n', 's', 6]]], (b, x) => b.op.Reshape(x!, [-1, 6])],
  [
    'Reshape from shape code',
    [['float32', ['n', 's', 12]]],
    (b, x) => {
      const shape = b.op.Shape(x!);
      const heads = b.op.Concat(
        [
          b.op.Slice(shape, [0], [2]),
          b.op.Unsqueeze(b.op.Div(b.op.Gather(shape, 2n), 3n), [0]),
          b.ints([-1]),
        ],
        { axis: 0 },
      );
      return b.op.Reshape(x!, heads);
    },
  ],
  [
    'Expand through Where',
    [
      ['float32', [1, 's']],
      ['float32', ['n', 's']],
    ],
    (b, x, y) => {
      const target = b.op.Shape(y!);
      const chosen = b.op.Where(b.op.Equal(target, [-1, -1]), [1, 1], target);
      return b.op.Expand(x!, chosen);
    },
  ],
  ['Flatten', [['float32', ['n', 's', 6]]], (b, x) => b.op.Flatten(x!, { axis: 2 })],
  ['Split', [['float32', ['n', 7]]], (b, x) => b.op.Split(x!, null, { axis: 1, num_outputs: 3 }, 3)],
  ['ReduceMax', [['float32', ['n', 's', 6]]], (b, x) => b.op.ReduceMax(x!, [1, -1], { keepdims: 0 })],
  ['ArgMax', [['float32', ['n', 's', 6]]], (b, x) => b.op.ArgMax(x!, { axis: -1, keepdims: 0 })],
  ['CumSum', [['float32', ['n', 's']]], (b, x) => b.op.CumSum(x!, 1n)],
  [
    'LayerNormalization',
    [
      ['float32', ['n', 's', 6]],
      ['float32', [6]],
    ],
    (b, x, s) => b.op.LayerNormalization(x!, s!, null, {}, 3),
  ],
  [
    'SoftmaxCrossEntropyLoss',
    [
      ['float32', ['n', 6, 's']],
      ['int64', ['n', 's']],
    ],
    (b, x, y) => b.op.SoftmaxCrossEntropyLoss(x!, y!, null, { reduction: 'none' }, 2),
  ],
  ['DynamicQuantizeLinear', [['float32', ['n', 's']]], (b, x) => b.op.DynamicQuantizeLinear(x!)],
  [
    'DequantizeLinear',
    [['uint8', ['n', 's']]],
    (b, x) => b.op.DequantizeLinear(x!, 0.5, b.scalar(2, 'uint8')),
  ],
  [
    'MatMul of vectors',
    [
      ['float32', [6]],
      ['float32', ['n', 6, 's']],
    ],
    (b, x, y) => b.op.MatMul(x!, y!),
  ],
  [
    'Gemm',
    [
      ['float32', [6, 'n']],
      ['float32', ['s', 6]],
    ],
    (b, x, y) => b.op.Gemm(x!, y!, null, { transA: true, transB: true }),
  ],
  ['NonZero of a constant', [], (b) => b.op.NonZero(b.op.Equal(b.ints([3, 0, 3]), 3n))],
  [
    'Attention',
    [
      ['float32', ['n', 's', 12]],
      ['float32', ['n', 's', 6]],
      ['float32', ['n', 's', 6]],
    ],
    (b, q, k, v) => b.op.Attention(q!, k!, v!, { q_num_heads: 4, kv_num_heads: 2 }),
    23,
  ],
  [
    'RMSNormalization',
    [
      ['float32', ['n', 's', 6]],
      ['float32', [6]],
    ],
    (b, x, s) => b.op.RMSNormalization(x!, s!),
    23,
  ],
  [
    'RotaryEmbedding',
    [
      ['float32', ['n', 2, 's', 8]],
      ['float32', ['n', 's', 4]],
    ],
    (b, x, c) => b.op.RotaryEmbedding(x!, c!, c!),
    23,
  ],
  [
    'FusedMatMul',
    [
      ['float32', ['n', 's', 6]],
      ['float32', ['n', 'p', 6]],
    ],
    (b, x, y) => b.microsoft.FusedMatMul(x!, y!, { transB: true }),
  ],
  [
    'SkipLayerNormalization',
    [
      ['float32', ['n', 's', 6]],
      ['float32', [6]],
    ],
    (b, x, g) => b.microsoft.SkipLayerNormalization(x!, x!, g!),
  ],
  [
    'BiasGelu',
    [
      ['float32', ['n', 's', 6]],
      ['float32', [6]],
    ],
    (b, x, g) => b.microsoft.BiasGelu(x!, g!),
  ],
  [
    'MultiHeadAttention',
    [
      ['float32', ['n', 's', 12]],
      ['float32', ['n', 'p', 12]],
    ],
    (b, q, k) => b.microsoft.MultiHeadAttention(q!, k!, k!, { num_heads: 3 }),
  ],
  [
    'Attention of packed weights',
    [
      ['float32', ['n', 's', 12]],
      ['float32', [12, 36]],
      ['float32', [36]],
    ],
    (b, x, w, c) => b.microsoft.Attention(x!, w!, c!, null, null, null, null, { num_heads: 3 }, 2),
  ],
  [
    'EmbedLayerNormalization',
    [
      ['int32', ['n', 's']],
      ['float32', [9, 8]],
      ['float32', [16, 8]],
      ['float32', [8]],
    ],
    (b, ids, w, p, g) =>
      b.microsoft.EmbedLayerNormalization(ids!, null, w!, p!, null, g!, g!, null, null, {}, 2),
  ],
  [
    'MatMulNBits',
    [
      ['float32', ['n', 's', 32]],
      ['uint8', [8, 1, 16]],
      ['float32', [8]],
    ],
    (b, x, w, s) => b.microsoft.MatMulNBits(x!, w!, s!, { K: 32, N: 8, bits: 4, block_size: 32 }),
  ],
];

function bytes(values: readonly number[]) {
  const inline = new Uint8Array(Float32Array.from(values).buffer);
  return { byteLength: inline.byteLength, inline, read: (o: number, l: number) => inline.subarray(o, o + l) };
}

describe('rules', () => {
  it.each(cases.map(([name, ...rest]) => [name, rest] as const))('%s', async (_, [inputs, build, opset]) => {
    await check(inputs, build, opset ?? 20);
  });
});
