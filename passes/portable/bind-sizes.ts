/**
 * Fixes free sizes. Exports with dynamic axes compute shapes at run time; with every input size known that arithmetic is
 * constant, and a device that cannot do it is not asked to.
 */

import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { inferModel, retype } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { type Dim, formatType, tensorType } from '../../src/types.js';
import { requiredInputs } from './inputs.js';

/** Dimensions by input name; inputs that are left out keep their types. */
export type InputSizes = Readonly<Record<string, readonly number[]>>;

/**
 * Gives the inputs these sizes, in place, and infers all types again. A symbol that an input fixes is fixed in every
 * other input too.
 * @throws E_TYPE when a size contradicts what the model declares.
 */
export function bindSizes(model: Model, sizes: InputSizes): void {
  inferModel(model);
  const inputs = requiredInputs(model.graph);
  const symbols = new Map<string, number>();
  for (const input of inputs) {
    const dims = sizes[input.label];
    if (dims === undefined || input.type?.kind !== 'tensor') continue;
    const shape = input.type.shape ?? dims.map(() => null);
    if (shape.length !== dims.length) contradicts(input, dims);
    for (const [axis, dim] of shape.entries()) {
      const size = dims[axis] as number;
      if (typeof dim === 'number' ? dim !== size : dim !== null && (symbols.get(dim) ?? size) !== size)
        contradicts(input, dims);
      if (typeof dim === 'string') symbols.set(dim, size);
    }
    input.type = tensorType(input.type.dtype, dims);
  }
  const bound = (dim: Dim): Dim => (typeof dim === 'string' ? (symbols.get(dim) ?? dim) : dim);
  for (const input of inputs) {
    const { type } = input;
    if (type?.kind === 'tensor' && type.shape !== null)
      input.type = tensorType(type.dtype, type.shape.map(bound));
  }
  retype(
    model,
    inputs.filter((input) => input.users.size > 0),
  );
  for (const output of model.graph.outputs) output.type = output.value.type;
}

function contradicts(input: Value, dims: readonly number[]): never {
  return fail('E_TYPE', {
    message: `Input '${input.label}' is ${formatType(input.type)}, the given size is [${dims.join(', ')}]`,
    remedy: 'Give tensors of the declared sizes, the same for equal symbols',
  });
}
