import type { Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { type Draw, draw, type GradientCase, type Variant } from '../harness.js';

type Unary = (b: Builder, x: Value) => Value;

function unary(
  name: string,
  build: Unary,
  how: Draw = draw.normal,
  more: Partial<GradientCase> = {},
): GradientCase {
  return { name, inputs: [{ shape: [2, 3, 4], draw: how }], build: (b, [x]) => build(b, x!), ...more };
}

type Binary = (b: Builder, x: Value, y: Value) => Value;

/** The same op with equal shapes, broadcast on either side, and a scalar. */
function binary(
  name: string,
  build: Binary,
  left: Draw = draw.normal,
  right: Draw = left,
  more: Partial<GradientCase> = {},
) {
  const pairs = [
    [
      [2, 3, 4],
      [2, 3, 4],
    ],
    [[2, 3, 4], [4]],
    [
      [1, 4],
      [2, 3, 1],
    ],
    [
      [3, 1],
      [2, 1, 4],
    ],
    [[2, 3], []],
  ] as const;
  return pairs.map(
    ([a, c]): GradientCase => ({
      name: `${name} [${a}]×[${c}]`,
      inputs: [
        { shape: a, draw: left },
        { shape: c, draw: right },
      ],
      build: (b, [x, y]) => build(b, x!, y!),
      ...more,
    }),
  );
}

/** Before opset 13 axes are attributes, so nothing can be decided at run time. */
const old: Variant[] = ['static', 'symbolic'];
/** Away from ±3/4. */
const hardSwish: Draw = (random, i) => [-1.3, -0.5, 0.4, 1.1][i % 4]! + 0.2 * random();
const f32 = { dtype: 'float32' } as const;

const rootMeanSquare = (b: Builder, squares: Value) =>
  b.op.Sqrt(b.op.Add(b.op.ReduceMean(squares, [-1], { keepdims: 1 }), 0.1));

export const elementwise: Record<string, GradientCase[]> = {
  Identity: [unary('Identity', (b, x) => b.op.Identity(x))],
  Neg: [unary('Neg', (b, x) => b.op.Neg(x))],
  Abs: [unary('Abs', (b, x) => b.op.Abs(x), draw.awayFromZero)],
  Exp: [unary('Exp', (b, x) => b.op.Exp(x))],
  Log: [unary('Log', (b, x) => b.op.Log(x), draw.positive)],
  Sqrt: [unary('Sqrt', (b, x) => b.op.Sqrt(x), draw.positive)],
  Reciprocal: [unary('Reciprocal', (b, x) => b.op.Reciprocal(x), draw.awayFromZero)],
  Erf: [unary('Erf', (b, x) => b.op.Erf(x), draw.normal, f32)],
  Sin: [unary('Sin', (b, x) => b.op.Sin(x))],
  Cos: [unary('Cos', (b, x) => b.op.Cos(x), draw.normal)],
  Tan: [unary('Tan', (b, x) => b.op.Tan(x), draw.unit, f32)],
  Asin: [unary('Asin', (b, x) => b.op.Asin(x), draw.unit, f32)],
  Acos: [unary('Acos', (b, x) => b.op.Acos(x), draw.unit, f32)],
  Atan: [unary('Atan', (b, x) => b.op.Atan(x), draw.normal, f32)],
  Sinh: [unary('Sinh', (b, x) => b.op.Sinh(x), draw.normal, f32)],
  Cosh: [unary('Cosh', (b, x) => b.op.Cosh(x), draw.normal, f32)],
  Asinh: [unary('Asinh', (b, x) => b.op.Asinh(x), draw.normal, f32)],
  Acosh: [unary('Acosh', (b, x) => b.op.Acosh(x), draw.aboveOne, f32)],
  Atanh: [unary('Atanh', (b, x) => b.op.Atanh(x), draw.unit, f32)],
  Tanh: [unary('Tanh', (b, x) => b.op.Tanh(x))],
  Sigmoid: [unary('Sigmoid', (b, x) => b.op.Sigmoid(x))],
  Floor: [unary('Floor', (b, x) => b.op.Floor(x), draw.normal, { flat: true })],
  Ceil: [unary('Ceil', (b, x) => b.op.Ceil(x), draw.normal, { flat: true })],
  Round: [unary('Round', (b, x) => b.op.Round(x), draw.normal, { flat: true })],
  Sign: [unary('Sign', (b, x) => b.op.Sign(x), draw.normal, { flat: true })],
  Add: binary('Add', (b, x, y) => b.op.Add(x, y)),
  Sub: binary('Sub', (b, x, y) => b.op.Sub(x, y)),
  Mul: [
    ...binary('Mul', (b, x, y) => b.op.Mul(x, y)),
    unary('Mul by itself', (b, x) => b.op.Mul(x, x)),
    // ONNX Runtime fuses this to an op that has no float64 kernel.
    unary('SiLU', (b, x) => b.op.Mul(x, b.op.Sigmoid(x)), draw.normal, f32),
    unary('SiLU with another reader of the gate', (b, x) => {
      const gate = b.op.Sigmoid(x);
      return b.op.Add(b.op.Mul(gate, x), b.op.Exp(gate));
    }),
    unary('RMS norm by Reciprocal', (b, x) =>
      b.op.Mul(x, b.op.Reciprocal(rootMeanSquare(b, b.op.Pow(x, 2)))),
    ),
    unary('RMS norm by Div', (b, x) => b.op.Mul(b.op.Div(1, rootMeanSquare(b, b.op.Mul(x, x))), x)),
    unary('no RMS norm: squares of another value', (b, x) =>
      b.op.Mul(x, b.op.Reciprocal(rootMeanSquare(b, b.op.Pow(b.op.Exp(x), 2)))),
    ),
    unary('Mul by a number', (b, x) => b.op.Add(b.op.Mul(x, 0.3), b.op.Exp(b.op.Mul(-2, x)))),
  ],
  Div: [
    ...binary('Div', (b, x, y) => b.op.Div(x, y), draw.normal, draw.positive),
    unary('Div by a number', (b, x) => b.op.Div(b.op.Exp(x), 0.3)),
  ],
  Pow: [
    ...binary('Pow', (b, x, y) => b.op.Pow(x, y), draw.positive, draw.normal),
    ...[1, 2, 3, 0.5, -0.5, 1.7, -2].map((e) => unary(`Pow ${e}`, (b, x) => b.op.Pow(x, e), draw.positive)),
    unary('Pow 3 of signed', (b, x) => b.op.Pow(x, 3)),
  ],
  Sum: [
    {
      name: 'Sum',
      inputs: [{ shape: [2, 3] }, { shape: [3] }, { shape: [2, 1] }],
      build: (b, xs) => b.op.Sum(xs),
    },
  ],
  Mean: [
    {
      name: 'Mean',
      inputs: [{ shape: [2, 3] }, { shape: [3] }, { shape: [2, 1] }],
      build: (b, xs) => b.op.Mean(xs),
      dtype: 'float32',
    },
  ],
  Max: [
    {
      name: 'Max',
      inputs: [
        { shape: [3, 4], draw: draw.awayFromZero },
        { shape: [4], draw: (r) => 0.05 * r() },
      ],
      build: (b, xs) => b.op.Max(xs),
    },
  ],
  Min: [
    {
      name: 'Min',
      inputs: [
        { shape: [3, 4], draw: draw.awayFromZero },
        { shape: [3, 1], draw: (r) => 0.05 * r() },
      ],
      build: (b, xs) => b.op.Min(xs),
    },
  ],
  Clip: [
    unary(
      'Clip',
      (b, x) => b.op.Clip(x, b.scalar(-0.5, 'float64'), b.scalar(0.45, 'float64')),
      draw.distinct,
    ),
    unary('Clip below', (b, x) => b.op.Clip(x, b.scalar(-0.5, 'float64')), draw.distinct),
    {
      name: 'Clip with bounds',
      inputs: [
        { shape: [3, 4], draw: draw.distinct },
        { shape: [], draw: () => -0.31 },
        { shape: [], draw: () => 0.37 },
      ],
      build: (b, [x, low, high]) => b.op.Clip(x!, low, high),
    },
  ],
  Mod: [
    {
      name: 'Mod',
      inputs: [
        { shape: [2, 3], draw: (r) => 0.5 + r() },
        { shape: [3], draw: (r) => 0.4 + 0.02 * r() },
      ],
      build: (b, [x, y]) => b.op.Mod(x!, y!, { fmod: 1 }),
    },
  ],
  Where: [
    {
      name: 'Where',
      inputs: [
        { shape: [2, 1, 4], fixed: { dtype: 'bool', data: [1, 0, 0, 1, 0, 1, 1, 0] } },
        { shape: [3, 4] },
        { shape: [2, 3, 1] },
      ],
      build: (b, [c, x, y]) => b.op.Where(c!, x!, y!),
      dtype: 'float64',
    },
  ],
  PRelu: [
    {
      name: 'PRelu',
      inputs: [{ shape: [2, 3, 4], draw: draw.awayFromZero }, { shape: [3, 1] }],
      build: (b, [x, s]) => b.op.PRelu(x!, s!),
      ...f32,
    },
  ],
  Relu: [unary('Relu', (b, x) => b.op.Relu(x), draw.awayFromZero)],
  LeakyRelu: [unary('LeakyRelu', (b, x) => b.op.LeakyRelu(x, { alpha: 0.2 }), draw.awayFromZero, f32)],
  ThresholdedRelu: [
    unary('ThresholdedRelu', (b, x) => b.op.ThresholdedRelu(x, { alpha: 0.05 }), draw.awayFromZero, f32),
  ],
  Elu: [unary('Elu', (b, x) => b.op.Elu(x, { alpha: 0.7 }), draw.awayFromZero, f32)],
  Selu: [unary('Selu', (b, x) => b.op.Selu(x), draw.awayFromZero, f32)],
  Celu: [unary('Celu', (b, x) => b.op.Celu(x, { alpha: 0.6 }), draw.awayFromZero, f32)],
  Softplus: [unary('Softplus', (b, x) => b.op.Softplus(x), draw.normal, f32)],
  Softsign: [unary('Softsign', (b, x) => b.op.Softsign(x), draw.awayFromZero, f32)],
  HardSigmoid: [
    unary('HardSigmoid', (b, x) => b.op.HardSigmoid(x, { alpha: 0.2, beta: 0.5 }), draw.normal, f32),
  ],
  HardSwish: [unary('HardSwish', (b, x) => b.op.HardSwish(b.op.Mul(x, 4)), hardSwish, f32)],
  Mish: [unary('Mish', (b, x) => b.op.Mish(x), draw.normal, f32)],
  Swish: [unary('Swish', (b, x) => b.op.Swish(x, { alpha: 0.8 }), draw.normal, { opset: 24 })],
  Gelu: [
    unary('Gelu', (b, x) => b.op.Gelu(x), draw.normal, f32),
    unary('Gelu tanh', (b, x) => b.op.Gelu(x, { approximate: 'tanh' })),
  ],
  'com.microsoft.Gelu': [unary('ms Gelu', (b, x) => b.microsoft.Gelu(x), draw.normal, f32)],
  'com.microsoft.QuickGelu': [unary('QuickGelu', (b, x) => b.microsoft.QuickGelu(x), draw.normal, f32)],
  'com.microsoft.FastGelu': [
    unary('FastGelu', (b, x) => b.microsoft.FastGelu(x)),
    {
      name: 'FastGelu with bias',
      inputs: [{ shape: [2, 3, 4] }, { shape: [4] }],
      build: (b, [x, bias]) => b.microsoft.FastGelu(x!, bias),
    },
  ],
  'com.microsoft.BiasGelu': [
    {
      name: 'BiasGelu',
      inputs: [{ shape: [2, 3, 4] }, { shape: [4] }],
      build: (b, [x, bias]) => b.microsoft.BiasGelu(x!, bias!),
      dtype: 'float32',
    },
  ],
  Softmax: [-1, 0, 1].flatMap((axis) => [
    unary(`Softmax ${axis}`, (b, x) => b.op.Softmax(x, { axis })),
    {
      ...unary(`Softmax-11 ${axis}`, (b, x) => b.call('Softmax', [x], { axis })[0]!),
      opset: 12,
      variants: old,
    },
  ]),
  LogSoftmax: [-1, 1].flatMap((axis) => [
    unary(`LogSoftmax ${axis}`, (b, x) => b.op.LogSoftmax(x, { axis })),
    {
      ...unary(`LogSoftmax-11 ${axis}`, (b, x) => b.call('LogSoftmax', [x], { axis })[0]!),
      opset: 12,
      variants: old,
    },
  ]),
  Cast: [
    unary(
      'Cast',
      (b, x) =>
        b.op.Cast(b.op.Mul(b.op.Cast(x, { to: 'float32' }), b.op.Cast(x, { to: 'float32' })), {
          to: 'float64',
        }),
      draw.normal,
      {
        ...f32,
      },
    ),
  ],
  CastLike: [
    unary('CastLike', (b, x) => b.op.Exp(b.op.CastLike(x, b.scalar(1, 'float32'))), draw.normal, f32),
  ],
  Dropout: [unary('Dropout', (b, x) => b.op.Exp(b.op.Dropout(x, b.scalar(0.3, 'float32'))))],
};
