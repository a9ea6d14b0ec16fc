import { z } from 'zod';
import { fail } from '../../src/errors.js';
import { defineLoss, floatTensor } from './loss.js';
import { softmaxCrossEntropy } from './softmax-cross-entropy.js';

/**
 * Cross-entropy of scores [..., classes] against class numbers int64 [...], as `torch.nn.CrossEntropyLoss` with
 * `reduction='mean'`: mean over the rows that count, weighted by the class weight of the label where there are weights.
 * Token classification is the same with one more axis.
 */
export const classification = defineLoss({
  id: 'classification',
  summary: 'Cross-entropy against class numbers, for sequence and token classification',
  config: z.strictObject({
    output: z.string().optional(),
    labels: z.string().default('labels'),
    ignoreIndex: z.int().default(-100),
    labelSmoothing: z.number().min(0).max(1).default(0),
    classWeights: z.array(z.number().min(0)).min(1).optional(),
  }),
  build(context, { output, labels: name, ignoreIndex, labelSmoothing, classWeights }) {
    const logits = context.output(output);
    const { shape } = floatTensor(logits, 'classification', 1);
    const classes = shape.at(-1);
    if (classWeights !== undefined && typeof classes === 'number' && classWeights.length !== classes)
      fail('E_USAGE', {
        message: `There are ${classWeights.length} class weights for ${classes} classes`,
        where: `loss classification on '${logits.label}'`,
      });
    const { correct, ...loss } = softmaxCrossEntropy(context.b, {
      loss: 'classification',
      logits,
      labels: context.label({ name, dtype: 'int64', shape: shape.slice(0, -1), padding: ignoreIndex }),
      ignoreIndex,
      smoothing: labelSmoothing,
      classWeights,
    });
    // Correct predictions are counted unweighted, so their rate is over the weight only where the weights are all 1.
    const perWeight = classWeights === undefined;
    return { ...loss, metrics: [{ name: 'correct', value: correct, reduce: 'sum', perWeight }] };
  },
});
