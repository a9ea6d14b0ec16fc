/** The eval graph alone, of any model: one with an adapter inside, a base, or what a fold wrote. */
import type { Model } from '../../src/model.js';
import { configuredLoss } from '../losses/index.js';
import { fixInputs } from '../normalize/fixed-inputs.js';
import { describeBatch, describeGraphs, tensorOf } from './describe.js';
import { emitEval } from './eval.js';
import type { EvalManifest } from './manifest.js';
import { PublicNames } from './names.js';
import type { StepOptions } from './options.js';

export type EvaluationOptions = Pick<StepOptions, 'loss' | 'lossConfig' | 'inputs'>;

export interface EvaluationTarget {
  readonly eval: Model;
  readonly manifest: EvalManifest;
}

/**
 * The loss of a model as a graph whose only inputs are the batch; the model is not changed.
 * Throws E_NO_MATCH (no such output), E_TYPE (an output that the loss cannot read), E_USAGE (options).
 */
export function emitEvaluation(given: Model, options: EvaluationOptions): EvaluationTarget {
  const model = fixInputs(given, options.inputs);
  const loss = configuredLoss(options.loss, options.lossConfig);
  const names = new PublicNames(model);
  const fixed = { loss: names.claim('loss'), weight: names.claim('loss_weight') };
  const evaluation = emitEval(model, [], { loss, names, labelNames: new Map(), fixed, outputs: 'loss' });
  const models = { eval: evaluation.model };
  return {
    ...models,
    manifest: {
      graphs: describeGraphs(models, (graph) => `${graph}.onnx`),
      batch: describeBatch(model, models, evaluation.labels),
      outputs: {
        ...fixed,
        metrics: evaluation.metrics,
        model: evaluation.outputs.map(({ name, value }) => ({ name, ...tensorOf(value.type) })),
      },
      loss: { id: loss.id, config: loss.config, perplexity: loss.perplexity },
    },
  };
}
