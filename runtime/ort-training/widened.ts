/** bfloat16 models for the training API, whose CPU build has next to no kernels for them: computed in float32. */
import type { OrtTrainingModels } from '../../passes/targets/ort-training/emit.js';
import { hasBfloat16, widenBfloat16 } from '../widen.js';

/** The models with float32 wherever they have bfloat16, inputs and outputs included; others as they are. */
export function widened<M extends OrtTrainingModels>(models: M): M {
  const { training, evaluation } = models;
  if (!hasBfloat16(training) && !hasBfloat16(evaluation)) return models;
  return {
    ...models,
    training: widenBfloat16(training),
    evaluation: widenBfloat16(evaluation),
    inputs: models.inputs.map(inFloat32),
    evalOutputs: models.evalOutputs.map(inFloat32),
  };
}

function inFloat32<T extends { readonly dtype: string }>(tensor: T): T {
  return tensor.dtype === 'bfloat16' ? { ...tensor, dtype: 'float32' } : tensor;
}
