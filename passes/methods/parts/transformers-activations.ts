/** Activation functions of transformers (`ACT2FN`) that have no parameters: those that methods offer, and the rest. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { ACTIVATION_NAMES, type ActivationName, activate } from './activations.js';

type Activation = (op: Ops, x: Value) => Value;

const gelu: Activation = (op, x) => op.Gelu(x);
const tanhGelu: Activation = (op, x) => op.Gelu(x, { approximate: 'tanh' });

/** Mean and deviation of the normal distribution that `laplace` is the integral of. */
// biome-ignore lint/suspicious/noApproximativeNumericConstant: transformers rounds it so
const [MEAN, DEVIATION] = [0.707107, 0.282095];

const FURTHER = {
  gelu_python: gelu,
  gelu_10: (op, x) => op.Clip(op.Gelu(x), -10, 10),
  gelu_fast: tanhGelu,
  gelu_pytorch_tanh: tanhGelu,
  gelu_python_tanh: tanhGelu,
  gelu_accurate: tanhGelu,
  hardswish: (op, x) => op.Mul(x, op.Div(op.Clip(op.Add(x, 3), 0, 6), 6)),
  laplace: (op, x) => op.Mul(op.Add(op.Erf(op.Div(op.Sub(x, MEAN), DEVIATION * Math.SQRT2)), 1), 0.5),
  mish: (op, x) => op.Mul(x, op.Tanh(op.Softplus(x))),
  relu2: (op, x) => op.Mul(op.Relu(x), op.Relu(x)),
  relu6: (op, x) => op.Clip(x, 0, 6),
  sqrtsoftplus: (op, x) => op.Sqrt(op.Softplus(x)),
} as const satisfies Readonly<Record<string, Activation>>;

export type TransformersActivation = ActivationName | keyof typeof FURTHER;

export const TRANSFORMERS_ACTIVATIONS = [...ACTIVATION_NAMES, ...Object.keys(FURTHER)] as [
  TransformersActivation,
  ...TransformersActivation[],
];

export function activateAsTransformers(op: Ops, name: TransformersActivation, x: Value): Value {
  const further = FURTHER[name as keyof typeof FURTHER] as Activation | undefined;
  return further === undefined ? activate(op, name as ActivationName, x) : further(op, x);
}
