import { draw, type GradientCase } from '../harness.js';

const f32 = { dtype: 'float32' } as const;
const stat: Pick<GradientCase, 'variants'> = { variants: ['static'] };

export const layers: Record<string, GradientCase[]> = {
  LayerNormalization: [
    ...[-1, 1, 2].map((axis): GradientCase => {
      const tail = [3, 4, 5].slice(axis < 0 ? axis : axis);
      return {
        name: `LayerNormalization ${axis}`,
        inputs: [{ shape: [3, 4, 5] }, { shape: tail }, { shape: tail }],
        build: (b, [x, s, c]) => b.op.LayerNormalization(x!, s!, c, { axis }),
      };
    }),
    {
      name: 'LayerNormalization with statistics',
      inputs: [{ shape: [3, 4, 5] }, { shape: [5] }],
      build: (b, [x, s]) => b.call('LayerNormalization', [x!, s!], { axis: -1 }, { outputs: 3 })[0]!,
    },
  ],
  RMSNormalization: [
    {
      name: 'RMSNormalization',
      inputs: [{ shape: [3, 4, 5] }, { shape: [5] }],
      build: (b, [x, s]) => b.op.RMSNormalization(x!, s!, { axis: -1 }),
      opset: 23,
    },
  ],
  SimplifiedLayerNormalization: [
    {
      name: 'SimplifiedLayerNormalization',
      inputs: [{ shape: [3, 4, 5] }, { shape: [5] }],
      build: (b, [x, s]) => b.call('SimplifiedLayerNormalization', [x!, s!], { axis: -1, epsilon: 1e-3 })[0]!,
    },
  ],
  InstanceNormalization: [
    {
      name: 'InstanceNormalization',
      inputs: [{ shape: [2, 3, 4, 5] }, { shape: [3] }, { shape: [3] }],
      build: (b, [x, s, c]) => b.op.InstanceNormalization(x!, s!, c!),
      ...f32,
    },
  ],
  BatchNormalization: [
    {
      name: 'BatchNormalization',
      inputs: [{ shape: [2, 3, 4] }, { shape: [3] }, { shape: [3] }],
      build: (b, [x, s, c]) => {
        const three = (value: number) => b.op.Expand(b.scalar(value, 'float64'), [3]);
        return b.op.BatchNormalization(x!, s!, c!, three(0.3), three(1.4));
      },
    },
  ],
  LpNormalization: [
    {
      name: 'LpNormalization',
      inputs: [{ shape: [3, 4] }],
      build: (b, [x]) => b.op.LpNormalization(x!, { axis: 1 }),
    },
  ],
  RotaryEmbedding: [
    {
      name: 'RotaryEmbedding',
      inputs: [
        { shape: [1, 2, 3, 4] },
        {
          shape: [5, 2],
          fixed: { dtype: 'float32', data: [1, 0.9, 0.5, 0.3, 0.1, -0.2, -0.4, -0.6, -0.8, -1] },
        },
        { shape: [5, 2], fixed: { dtype: 'float32', data: [0, 0.4, 0.8, 0.9, 1, 0.9, 0.8, 0.7, 0.5, 0] } },
        { shape: [1, 3], fixed: { dtype: 'int64', data: [1, 4, 2] } },
      ],
      build: (b, [x, cos, sin, ids]) => b.op.RotaryEmbedding(x!, cos!, sin!, ids),
      opset: 23,
      ...f32,
    },
  ],
  'com.microsoft.RotaryEmbedding': [
    {
      name: 'ms RotaryEmbedding',
      inputs: [
        { shape: [1, 2, 3, 4] },
        { shape: [1, 3], fixed: { dtype: 'int64', data: [1, 4, 2] } },
        {
          shape: [5, 2],
          fixed: { dtype: 'float32', data: [1, 0.9, 0.5, 0.3, 0.1, -0.2, -0.4, -0.6, -0.8, -1] },
        },
        { shape: [5, 2], fixed: { dtype: 'float32', data: [0, 0.4, 0.8, 0.9, 1, 0.9, 0.8, 0.7, 0.5, 0] } },
      ],
      build: (b, [x, ids, cos, sin]) => b.microsoft.RotaryEmbedding(x!, ids!, cos!, sin!),
      ...f32,
    },
  ],
  Conv: [
    conv('1-D', [2, 3, 7], [4, 3, 3], {}),
    conv('1×1', [2, 3, 4, 4], [5, 3, 1, 1], {}),
    conv('2-D strided, padded', [2, 4, 7, 6], [6, 4, 3, 2], { strides: [2, 3], pads: [1, 0, 2, 1] }),
    conv('2-D dilated', [1, 2, 9, 8], [3, 2, 3, 2], { dilations: [2, 3] }),
    conv('grouped', [2, 4, 5, 5], [6, 2, 3, 3], { group: 2, pads: [1, 1, 1, 1] }, stat),
    conv('depthwise, strided', [2, 3, 8], [3, 1, 3], { group: 3, strides: [2] }),
    conv('same', [1, 2, 7, 8], [3, 2, 3, 4], { auto_pad: 'SAME_UPPER', strides: [2, 1] }, stat),
  ],
  ConvTranspose: [
    {
      name: 'ConvTranspose',
      inputs: [{ shape: [2, 4, 5, 4] }, { shape: [4, 3, 3, 2] }, { shape: [3] }],
      build: (b, [x, w, c]) => b.op.ConvTranspose(x!, w!, c, { strides: [2, 1], pads: [1, 0, 0, 1] }),
      ...f32,
      ...stat,
    },
    {
      name: 'ConvTranspose grouped',
      inputs: [{ shape: [2, 4, 5] }, { shape: [4, 3, 3] }],
      build: (b, [x, w]) => b.op.ConvTranspose(x!, w!, null, { group: 2 }),
      ...f32,
      ...stat,
    },
  ],
  AveragePool: [
    pool('AveragePool', { kernel_shape: [2, 3] }),
    pool('AveragePool', { kernel_shape: [3, 2], strides: [2, 2], pads: [1, 0, 1, 1] }),
    pool('AveragePool', { kernel_shape: [3, 2], pads: [1, 0, 1, 1], count_include_pad: 1 }, stat),
  ],
  MaxPool: [
    pool('MaxPool', { kernel_shape: [2, 3] }),
    pool('MaxPool', { kernel_shape: [3, 2], strides: [2, 1], pads: [1, 0, 1, 1] }, stat),
  ],
  GlobalAveragePool: [
    {
      name: 'GlobalAveragePool',
      inputs: [{ shape: [2, 3, 4, 5] }],
      build: (b, [x]) => b.op.GlobalAveragePool(x!),
      ...f32,
    },
  ],
  GlobalMaxPool: [
    {
      name: 'GlobalMaxPool',
      inputs: [{ shape: [2, 3, 4, 5], draw: draw.distinct }],
      build: (b, [x]) => b.op.GlobalMaxPool(x!),
      ...f32,
    },
  ],
};

function conv(
  name: string,
  x: number[],
  w: number[],
  attributes: {
    strides?: number[];
    pads?: number[];
    dilations?: number[];
    group?: number;
    auto_pad?: string;
  },
  more: Partial<GradientCase> = {},
): GradientCase {
  return {
    name: `Conv ${name}`,
    inputs: [{ shape: x }, { shape: w }, { shape: [w[0] ?? 1] }],
    build: (b, [data, weight, bias]) => b.op.Conv(data!, weight!, bias, attributes),
    ...f32,
    // Kernel sizes and channels are static in every real model; other axes may be symbolic.
    variants: ['static'],
    ...more,
  };
}

function pool(
  op: 'AveragePool' | 'MaxPool',
  attributes: { kernel_shape: number[]; strides?: number[]; pads?: number[]; count_include_pad?: number },
  more: Partial<GradientCase> = {},
): GradientCase {
  return {
    name: `${op} ${JSON.stringify(attributes)}`,
    inputs: [{ shape: [2, 2, 6, 5], draw: (random, i) => 0.11 * ((i * 37) % 120) + 0.01 * random() }],
    build: (b, [x]) => b.call(op, [x!], attributes)[0]!,
    dtype: op === 'AveragePool' ? 'float32' : 'float64',
    ...more,
  };
}
