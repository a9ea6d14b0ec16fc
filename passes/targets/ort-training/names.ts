/** Names that ONNX Runtime's training API gives a meaning to. */
import { fail } from '../../../src/errors.js';
import { type Value, walkGraphs } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';

/** Input that tells the accumulators to overwrite. */
export const LAZY_RESET_GRAD = 'lazy_reset_grad';

/** Frozen parameter that counts forward passes: the seed of the dropout masks of the next one. */
export const DROPOUT_SEED = 'peft_compile.dropout_seed';

export const gradientName = (param: string): string => `${param}_grad`;
export const bufferName = (param: string): string => `${param}_grad.accumulation.buffer`;
export const updatedName = (param: string): string => `${param}_grad.accumulation.out`;

/** The runtime takes inputs and outputs that end so for gradients. */
const GRADIENT_SUFFIX = /_grad(\.accumulation\.(buffer|out))?$/;

/** Throws E_UNSUPPORTED where the runtime would take a caller's input for one of its own. */
export function checkUserInput(name: string): void {
  if (name === LAZY_RESET_GRAD || GRADIENT_SUFFIX.test(name))
    fail('E_UNSUPPORTED', {
      message: 'ONNX Runtime Training takes an input of this name for a gradient',
      where: name,
      remedy: `Rename the model's input; names may not be ${LAZY_RESET_GRAD} or end in _grad or _grad.accumulation.buffer`,
    });
}

/**
 * Frees names for the runtime's use: whatever else is called so inside the model gets another name when it is written.
 * Throws E_UNSUPPORTED where one belongs to an input or output of the model, or to a frozen parameter.
 */
export function freeNames(model: Model, wanted: ReadonlySet<string>, kept: ReadonlySet<Value>): void {
  const { graph } = model;
  const taken = [
    ...graph.inputs.filter((value) => !kept.has(value)).map(({ name }) => name),
    ...graph.outputs.filter(({ value }) => !kept.has(value)).map(({ name }) => name),
  ].find((name) => name !== undefined && wanted.has(name));
  if (taken !== undefined)
    fail('E_UNSUPPORTED', {
      message: 'An input or output of the model has the name of a parameter',
      where: taken,
      remedy: 'Rename it in the base model',
    });
  for (const inner of walkGraphs(graph)) {
    const values = [
      ...(inner === graph ? [] : inner.inputs),
      ...inner.initializers,
      ...[...inner.nodes()].flatMap(({ outputs }) => outputs),
    ];
    for (const value of values)
      if (value !== null && !kept.has(value) && value.name !== undefined && wanted.has(value.name))
        value.name = undefined;
  }
}
