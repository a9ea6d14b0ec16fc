/**
 * A bidirectional LSTM over a sequence of known length, written out in standard ops: the LSTM operator has no gradient,
 * and prompts are short. Both directions run side by side.
 */
import type { Value } from '../../../src/graph.js';
import { uniform } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { ParamSpec, ParamValues } from '../contract/method.js';

export interface LstmShape {
  readonly length: number;
  readonly inDim: number;
  readonly hidden: number;
  readonly layers: number;
}

const DIRECTIONS = ['', '_reverse'] as const;
const PARTS = ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'] as const;

function roleOf(part: (typeof PARTS)[number], layer: number, direction: string): string {
  return `${part}_l${layer}${direction}`;
}

/** Parameters by torch's names, weights [in, 4·hidden] with gates in the order i f g o. */
export function lstmParams(
  { length, inDim, hidden, layers }: LstmShape,
  key: string,
): Record<string, ParamSpec> {
  const params: Record<string, ParamSpec> = {};
  const init = uniform(1 / Math.sqrt(hidden));
  for (let layer = 0; layer < layers; layer++)
    for (const direction of DIRECTIONS)
      for (const part of PARTS) {
        // A sequence of one has no step before it.
        if (part === 'weight_hh' && length === 1) continue;
        const rows = {
          weight_ih: [layer === 0 ? inDim : 2 * hidden],
          weight_hh: [hidden],
          bias_ih: [],
          bias_hh: [],
        };
        const role = roleOf(part, layer, direction);
        params[role] = { shape: [...rows[part], 4 * hidden], init, key: `${key}.${role}` };
      }
  return params;
}

/** Outputs [length, 2·hidden] for inputs [length, in]. */
export function lstm(op: Ops, x: Value, params: ParamValues, shape: LstmShape): Value {
  let sequence = x;
  for (let layer = 0; layer < shape.layers; layer++) {
    // Both directions of a tensor, along a new first axis.
    const both = (part: (typeof PARTS)[number], axes: readonly number[]) =>
      op.Concat(
        DIRECTIONS.map((direction) => op.Unsqueeze(params[roleOf(part, layer, direction)] as Value, axes)),
        { axis: 0 },
      );
    const turned = op.Concat(
      [sequence, reversed(op, sequence, shape)].map((side) => op.Unsqueeze(side, [0])),
      { axis: 0 },
    );
    const bias = op.Add(both('bias_ih', [0, 1]), both('bias_hh', [0, 1]));
    const fed = op.Add(op.MatMul(turned, both('weight_ih', [0])), bias);
    const recurrent = shape.length > 1 ? both('weight_hh', [0]) : undefined;
    const outputs = recurrence(op, fed, recurrent, shape);
    const [forward, backward] = op.Split(op.Concat(outputs, { axis: 1 }), [1, 1], { axis: 0 }, 2);
    sequence = op.Concat([op.Squeeze(forward, [0]), reversed(op, op.Squeeze(backward, [0]), shape)], {
      axis: -1,
    });
  }
  return sequence;
}

/** The rows last to first. A lookup would do, but its gradient scatters, which few kernels do in half precision. */
function reversed(op: Ops, rows: Value, { length }: LstmShape): Value {
  if (length === 1) return rows;
  const ones = new Array<number>(length).fill(1);
  return op.Concat(op.Split(rows, ones, { axis: 0 }, length).reverse(), { axis: 0 });
}

/** c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c'), with (i f g o) = fed[t] + h W. States are [2, 1, hidden]. */
function recurrence(op: Ops, fed: Value, weight: Value | undefined, { length, hidden }: LstmShape): Value[] {
  const steps = length === 1 ? [fed] : op.Split(fed, new Array<number>(length).fill(1), { axis: 1 }, length);
  const outputs: Value[] = [];
  let state: { readonly h: Value; readonly c: Value } | undefined;
  for (const step of steps) {
    const gates =
      state === undefined || weight === undefined ? step : op.Add(step, op.MatMul(state.h, weight));
    const [i, f, g, o] = op.Split(gates, new Array<number>(4).fill(hidden), { axis: -1 }, 4);
    const entering = op.Mul(op.Sigmoid(i), op.Tanh(g));
    const c: Value = state === undefined ? entering : op.Add(op.Mul(op.Sigmoid(f), state.c), entering);
    state = { h: op.Mul(op.Sigmoid(o), op.Tanh(c)), c };
    outputs.push(state.h);
  }
  return outputs;
}
