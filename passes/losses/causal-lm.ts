import { z } from 'zod';
import { castTo, defineLoss, floatTensor } from './loss.js';
import { softmaxCrossEntropy } from './softmax-cross-entropy.js';

/**
 * Next-token cross-entropy: scores [batch, seq, vocab] at position t against the label at t + 1, mean over the tokens
 * that count. Labels int64 [batch, seq] are the tokens themselves, with `ignoreIndex` where they do not count.
 * The labels are shifted, not the scores: that costs one ignored row per sequence and no copy of the scores.
 */
export const causalLm = defineLoss({
  id: 'causal-lm',
  summary: 'Next-token cross-entropy of a language model, averaged over tokens',
  perplexity: true,
  config: z.strictObject({
    output: z.string().optional(),
    labels: z.string().default('labels'),
    ignoreIndex: z.int().default(-100),
    labelSmoothing: z.number().min(0).max(1).default(0),
  }),
  build(context, { output, labels: name, ignoreIndex, labelSmoothing }) {
    const { b } = context;
    const logits = context.output(output);
    const { shape } = floatTensor(logits, 'causal-lm', 3);
    const labels = context.label({ name, dtype: 'int64', shape: shape.slice(0, -1), padding: ignoreIndex });
    const narrow = castTo(b, labels, 'int32');
    const next = b.op.Slice(narrow, [1], [2 ** 31 - 1], [1]);
    // The last position has no next token. Built from the labels, so that no shape has to be computed.
    const last = b.op.Add(b.op.Mul(b.op.Slice(narrow, [0], [1], [1]), 0), ignoreIndex);
    const { correct, ...loss } = softmaxCrossEntropy(b, {
      loss: 'causal-lm',
      logits,
      labels: b.op.Concat([next, last], { axis: 1 }),
      ignoreIndex,
      smoothing: labelSmoothing,
    });
    return { ...loss, metrics: [{ name: 'correct', value: correct, reduce: 'sum', perWeight: true }] };
  },
});
