/** Activation functions that methods offer, by the names that PEFT, AdapterHub and transformers use. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';

type Activation = (op: Ops, x: Value) => Value;

const swish: Activation = (op, x) => op.Mul(x, op.Sigmoid(x));

const ACTIVATIONS = {
  relu: (op, x) => op.Relu(x),
  /** x·Φ(x) */
  gelu: (op, x) => op.Gelu(x),
  /** x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) */
  gelu_new: (op, x) => op.Gelu(x, { approximate: 'tanh' }),
  /** x·σ(1.702·x) */
  quick_gelu: (op, x) => op.Mul(x, op.Sigmoid(op.Mul(x, 1.702))),
  swish,
  silu: swish,
  tanh: (op, x) => op.Tanh(x),
  sigmoid: (op, x) => op.Sigmoid(x),
  leaky_relu: (op, x) => op.LeakyRelu(x),
  elu: (op, x) => op.Elu(x),
  softplus: (op, x) => op.Softplus(x),
  linear: (_op, x) => x,
} as const satisfies Readonly<Record<string, Activation>>;

export type ActivationName = keyof typeof ACTIVATIONS;

export const ACTIVATION_NAMES = Object.keys(ACTIVATIONS) as [ActivationName, ...ActivationName[]];

export function activate(op: Ops, name: ActivationName, x: Value): Value {
  return ACTIVATIONS[name](op, x);
}
