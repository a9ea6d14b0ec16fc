/** Frozen weights as frozen parameters of the checkpoint: inputs of both models instead of initializers. */
import { redirectUses, Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { INLINE_LIMIT, type Tensor } from '../../../src/tensor.js';
import { tensorType } from '../../../src/types.js';

export interface FrozenWeight {
  readonly name: string;
  readonly tensor: Tensor;
}

/**
 * Makes inputs of the weights that both models hold, in the order of the first; the runtime feeds parameters to the
 * second in the order of the first. Small constants stay, and so does all that is not float32.
 */
export function liftFrozen(training: Model, evaluation: Model): FrozenWeight[] {
  const known = new Map([...evaluation.graph.initializers].map((value) => [value.name, value]));
  const lifted: FrozenWeight[] = [];
  for (const value of [...training.graph.initializers]) {
    const { name, tensor } = value;
    const other = known.get(name);
    if (name === undefined || tensor === undefined || other?.tensor?.data !== tensor.data) continue;
    // The runtime takes parameters of other element types for damaged.
    if (tensor.data.byteLength <= INLINE_LIMIT || tensor.dtype !== 'float32') continue;
    lift(training, value, tensor);
    lift(evaluation, other, tensor);
    lifted.push({ name, tensor });
  }
  return lifted;
}

function lift({ graph }: Model, value: Value, { dtype, dims }: Tensor): void {
  const input = new Value({ name: value.name ?? value.hint, type: tensorType(dtype, dims) });
  redirectUses(value, input);
  graph.initializers.delete(value);
  const listed = graph.inputs.indexOf(value);
  if (listed >= 0) graph.inputs.splice(listed, 1);
  graph.addInput(input);
}
