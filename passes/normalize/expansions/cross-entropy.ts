/** Losses that came with a model, in ops that every runtime has. */
import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { dtypeOf } from '../../../src/value-type.js';
import { defineExpansion, type Expansion } from '../expansion.js';

/** Negative log-likelihood of log-probabilities [N, C, …] at targets [N, …]; targets `ignore_index` count for nothing. */
function likelihood(b: Builder, node: Node, logs: Value): Value {
  const { op } = b;
  const target = op.Cast(node.input(1), { to: 'int64' });
  const dtype = dtypeOf(logs) ?? 'float32';
  const reduction = node.attributes.get('reduction');
  const how = reduction?.type === 'string' ? reduction.value : 'mean';
  const ignore = node.attributes.get('ignore_index');
  const ignored = ignore?.type === 'int' ? op.Equal(target, b.scalar(ignore.value, 'int64')) : undefined;
  const safe = ignored === undefined ? target : op.Where(ignored, b.scalar(0, 'int64'), target);
  const picked = op.Squeeze(op.GatherElements(logs, op.Unsqueeze(safe, [1]), { axis: 1 }), [1]);
  const table = node.inputs[2] ?? undefined;
  let weight = table === undefined ? undefined : op.Gather(table, safe);
  if (ignored !== undefined) {
    const counts = op.Cast(op.Not(ignored), { to: dtype });
    weight = weight === undefined ? counts : op.Mul(weight, counts);
  }
  const loss = op.Neg(weight === undefined ? picked : op.Mul(picked, weight));
  if (how === 'none') return loss;
  const sum = (value: Value) => op.ReduceSum(value, null, { keepdims: 0 });
  if (how === 'sum') return sum(loss);
  return weight === undefined ? op.ReduceMean(loss, null, { keepdims: 0 }) : op.Div(sum(loss), sum(weight));
}

/** x - max - ln Σ e^(x - max) over the classes; the maximum cancels, and so does its gradient. */
function logProbabilities(b: Builder, scores: Value): Value {
  const { op } = b;
  const shifted = op.Sub(scores, op.ReduceMax(scores, [1], { keepdims: 1 }));
  return op.Sub(shifted, op.Log(op.ReduceSum(op.Exp(shifted), [1], { keepdims: 1 })));
}

export const crossEntropies: readonly Expansion[] = [
  defineExpansion({
    op: 'SoftmaxCrossEntropyLoss',
    expand(b, node) {
      const logs = logProbabilities(b, node.input(0));
      return [likelihood(b, node, logs), logs];
    },
  }),
  defineExpansion({
    op: 'NegativeLogLikelihoodLoss',
    expand: (b, node) => [likelihood(b, node, node.input(0))],
  }),
];
