/**
 * Masks of dropout are a function of a seed, which the training API gives the caller no place to feed or carry. So the
 * seed is a frozen parameter of the checkpoint that every training pass counts up, in place, with the accumulator that
 * the runtime has for gradients: masks differ from pass to pass, and a saved checkpoint goes on with the next ones.
 */
import { redirectUses, Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';
import { tensorType } from '../../../src/types.js';
import { applyEdit } from '../../edit.js';
import { DROPOUT_SEED } from './names.js';

/** The seed counts in float32, the one type that the accumulator has. */
export const SEED_LIMIT = 2 ** 24;

/** Replaces the graph input `seed` by a counter; returns the input that holds it, float32 [1]. */
export function countSeed(model: Model, seed: Value): Value {
  const { graph } = model;
  const b = new Builder(model, { provenance: 'dropout seed' });
  const { op } = b;
  const counter = new Value({ name: DROPOUT_SEED, type: tensorType('float32', [1]) });
  const [counted = counter] = b.call(
    'InPlaceAccumulatorV2',
    [counter, b.operand([1], 'float32')],
    {},
    {
      domain: 'com.microsoft',
    },
  );
  counted.type = tensorType('bool', [1]);
  // Both branches are the counter: whoever reads the result reads it after it was counted up.
  const next = op.Where(counted, counter, counter);
  const current = op.Squeeze(op.Cast(op.Sub(next, 1), { to: 'int32' }), [0]);
  const first = graph.firstNode;
  applyEdit({
    label: 'dropout seed',
    graph,
    add: { nodes: b.nodes, at: first === undefined ? 'end' : { before: first } },
    addInitializers: b.initializers,
  });
  redirectUses(seed, current);
  graph.inputs.splice(graph.inputs.indexOf(seed), 1);
  graph.addInput(counter);
  return counter;
}
