/** Gradients of the training model: the runtime owns a buffer per parameter, and the graph adds to it or overwrites it. */
import { Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';
import { tensorType } from '../../../src/types.js';
import { applyEdit } from '../../edit.js';
import { bufferName, gradientName, LAZY_RESET_GRAD, updatedName } from './names.js';

export interface AccumulatedGradient {
  readonly key: string;
  readonly shape: readonly number[];
  readonly param: Value;
  readonly gradient: Value;
  /** g ← scale·(g + decay·p). */
  readonly scale: number;
  readonly decay: number;
}

export interface Accumulators {
  /** One per parameter, and the flag that resets them, last. */
  readonly inputs: readonly Value[];
  readonly outputs: readonly (readonly [string, Value])[];
  /** Values inside that keep the names they have here. */
  readonly values: readonly Value[];
}

/** Appends the accumulators to a model whose gradients are float32. */
export function addAccumulators(model: Model, gradients: readonly AccumulatedGradient[]): Accumulators {
  const b = new Builder(model, { provenance: 'accumulation' });
  const { op } = b;
  const reset = new Value({ name: LAZY_RESET_GRAD, type: tensorType('bool', [1]) });
  const named = new Set<Value>();
  const parts = gradients.map(({ key, shape, param, gradient, scale, decay }, i) => {
    const buffer = new Value({ name: bufferName(key), type: tensorType('float32', shape) });
    const decayed = decay === 0 ? gradient : op.Add(gradient, op.Mul(param, decay));
    let value = scale === 1 ? decayed : op.Mul(decayed, scale);
    // A value that is no node's, or another parameter's gradient too, keeps the name it has.
    if (value.producer === undefined || named.has(value)) value = op.Identity(value);
    named.add(value);
    value.name = gradientName(key);
    const [updated = value] = b.call(
      'InPlaceAccumulatorV2',
      [buffer, value, reset],
      {},
      {
        domain: 'com.microsoft',
      },
    );
    updated.type = tensorType('bool', [1]);
    updated.name = updatedName(key);
    const node = updated.producer;
    if (node !== undefined) node.name = `GradientAccumulator${i + 1}`;
    return { buffer, value, updated };
  });
  applyEdit({
    label: 'accumulators',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  return {
    inputs: [...parts.map(({ buffer }) => buffer), reset],
    outputs: parts.map(({ updated }, i) => [updatedName(gradients[i]!.key), updated]),
    values: parts.flatMap(({ value, updated }) => [value, updated]),
  };
}
