/**
 * Gradients of normalisation layers, with x̂ = (x - μ)·r, r = 1/√(σ² + ε), g = dy·γ:
 * dx = r·(g - mean g - x̂·mean(g·x̂)); without centring the middle term is absent.
 */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { type Contribution, defineGradient, type Gradient, type GradientRule } from './rule.js';

function mean(c: GradientContext, value: Value, axes: readonly number[]): Value {
  return c.op.ReduceMean(value, axes, { keepdims: 1 });
}

/** 1/√(mean of squares + ε) */
function inverseRoot(c: GradientContext, value: Value, axes: readonly number[], epsilon: number): Value {
  return c.op.Reciprocal(c.op.Sqrt(c.op.Add(mean(c, c.op.Mul(value, value), axes), epsilon)));
}

function memo<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

interface Parts {
  /** x - μ, or x itself where nothing is centred. */
  readonly centred: () => Value;
  /** r, with size 1 on the normalised axes. */
  readonly inverse: () => Value;
  readonly axes: readonly number[];
  readonly scale: Value | undefined;
  readonly isCentred: boolean;
}

/** dx and dγ (with the shape of dy; summed by the caller). */
function normalised(c: GradientContext, parts: Parts): { dx: () => Value; dScale: () => Value } {
  const { op } = c;
  const { centred, inverse, axes, scale, isCentred } = parts;
  return {
    dx: () => {
      const g = scale === undefined ? c.dy : op.Mul(c.dy, scale);
      const r = inverse();
      // x̂·mean(g·x̂)·r = (x - μ)·r³·mean(g·(x - μ)); r³ alone would leave the range of float16.
      const mixed = mean(c, op.Mul(g, centred()), axes);
      const slope = op.Mul(op.Mul(op.Mul(mixed, r), r), r);
      const centredG = isCentred ? op.Sub(g, mean(c, g, axes)) : g;
      return op.Sub(op.Mul(centredG, r), op.Mul(centred(), slope));
    },
    dScale: () => op.Mul(c.dy, op.Mul(centred(), inverse())),
  };
}

function trailing(c: GradientContext): number[] {
  const axis = c.axis('axis', -1);
  return Array.from({ length: c.rank() - axis }, (_, i) => axis + i);
}

/** Outputs Mean and InvStdDev are reused where the node has them. */
const layerNormalization: GradientRule = (c) => {
  const axes = trailing(c);
  const [, savedMean, savedInverse] = c.node.outputs;
  const centred = memo(() => c.op.Sub(c.x, savedMean ? c.castLike(savedMean, c.x) : mean(c, c.x, axes)));
  const inverse = memo(() =>
    savedInverse ? c.castLike(savedInverse, c.x) : inverseRoot(c, centred(), axes, c.float('epsilon', 1e-5)),
  );
  for (const index of [1, 2])
    if (c.hasCotangent(index)) c.unsupported('the loss reads its statistics outputs');
  const { dx, dScale } = normalised(c, { centred, inverse, axes, scale: c.input(1), isCentred: true });
  return [dx, () => c.shapes.unbroadcast(dScale(), c.input(1)), () => c.shapes.unbroadcast(c.dy, c.input(2))];
};

/** Output 1 of ONNX Runtime's op is the mean on WebGPU, against its definition, so r is computed again. */
const rmsNormalization: GradientRule = (c) => {
  const axes = trailing(c);
  const inverse = memo(() => inverseRoot(c, c.x, axes, c.float('epsilon', 1e-5)));
  const { dx, dScale } = normalised(c, {
    centred: () => c.x,
    inverse,
    axes,
    scale: c.input(1),
    isCentred: false,
  });
  return [dx, () => c.shapes.unbroadcast(dScale(), c.input(1))];
};

/** γ and β of shape [C] against x of shape [N, C, …]. */
function perChannel(c: GradientContext, value: Value): Value {
  return c.shapes.reshape(value, [1, -1, ...new Array<number>(c.rank() - 2).fill(1)]);
}

function sumPerChannel(c: GradientContext, value: Value): Value {
  const axes = Array.from({ length: c.rank() }, (_, i) => i).filter((i) => i !== 1);
  return c.op.ReduceSum(value, axes, { keepdims: 0 });
}

const instanceNormalization: GradientRule = (c) => {
  const axes = Array.from({ length: c.rank() - 2 }, (_, i) => i + 2);
  const centred = memo(() => c.op.Sub(c.x, mean(c, c.x, axes)));
  const inverse = memo(() => inverseRoot(c, centred(), axes, c.float('epsilon', 1e-5)));
  const scale = perChannel(c, c.input(1));
  const { dx, dScale } = normalised(c, { centred, inverse, axes, scale, isCentred: true });
  return [dx, () => sumPerChannel(c, dScale()), () => sumPerChannel(c, c.dy)];
};

/** With frozen statistics the layer is affine: y = (x - μ)·γ/√(σ² + ε) + β. */
const batchNormalization: GradientRule = (c) => {
  if (c.int('training_mode', 0) !== 0) return c.node.inputs.map(() => c.stop('training_mode is on'));
  const { op } = c;
  const inverse = memo(() => op.Reciprocal(op.Sqrt(op.Add(c.input(4), c.float('epsilon', 1e-5)))));
  const statistics: Contribution = c.stop('its statistics are trained');
  return [
    () => op.Mul(c.dy, perChannel(c, op.Mul(c.input(1), inverse()))),
    () => op.Mul(sumPerChannel(c, op.Mul(c.dy, op.Sub(c.x, perChannel(c, c.input(3))))), inverse()),
    () => sumPerChannel(c, c.dy),
    statistics,
    statistics,
  ];
};

/** y = x/‖x‖: dx = (dy - y·Σ y·dy)/‖x‖ for p = 2. */
const lpNormalization: GradientRule = (c) => [
  () => {
    if (c.int('p', 2) !== 2) return c.unsupported('p is not 2');
    const axes = [c.axis('axis', -1)];
    const dot = c.op.ReduceSum(c.op.Mul(c.dy, c.y), axes, { keepdims: 1 });
    return c.op.Div(c.op.Sub(c.dy, c.op.Mul(c.y, dot)), c.op.ReduceL2(c.x, axes, { keepdims: 1 }));
  },
];

export const normalizations: readonly Gradient[] = [
  defineGradient({ op: 'LayerNormalization' }, layerNormalization),
  defineGradient({ op: 'RMSNormalization' }, rmsNormalization),
  defineGradient({ op: 'SimplifiedLayerNormalization' }, rmsNormalization),
  defineGradient({ op: 'InstanceNormalization' }, instanceNormalization),
  defineGradient({ op: 'BatchNormalization' }, batchNormalization),
  defineGradient({ op: 'LpNormalization' }, lpNormalization),
];
