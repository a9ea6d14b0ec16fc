/** What the manifest says about emitted graphs. */
import type { Model } from '../../src/model.js';
import type { DType, Shape, ValueType } from '../../src/types.js';
import type { BatchInput, StepManifest } from './manifest.js';
import type { PlacedLabel } from './objective.js';

export type GraphName = 'step' | 'grad' | 'update' | 'eval';
export type EmittedModels = { readonly [name in GraphName]?: Model } & { readonly eval: Model };

export function describeGraphs(
  models: EmittedModels,
  fileName: (graph: GraphName) => string,
): StepManifest['graphs'] {
  const describe = (name: GraphName, { graph }: Model): StepManifest['graphs']['eval'] => ({
    file: fileName(name),
    inputs: graph.inputs.map(({ name }) => name ?? ''),
    outputs: graph.outputs.map(({ name }) => name ?? ''),
  });
  const { step, grad, update } = models;
  return {
    ...(step === undefined ? {} : { step: describe('step', step) }),
    ...(grad === undefined ? {} : { grad: describe('grad', grad) }),
    ...(update === undefined ? {} : { update: describe('update', update) }),
    eval: describe('eval', models.eval),
  };
}

/** Inputs of the adapted model that some graph reads, in its order, then labels. */
export function describeBatch(
  adapted: Model,
  models: EmittedModels,
  labels: readonly PlacedLabel[],
): BatchInput[] {
  const read = new Set(Object.values(models).flatMap((model) => model.graph.inputs.map(({ name }) => name)));
  const params = adapted.graph.inputs.flatMap(({ name, type, tensor }): BatchInput[] =>
    name === undefined || tensor !== undefined || !read.has(name)
      ? []
      : [{ name, ...tensorOf(type), role: 'input' }],
  );
  return [
    ...params,
    ...labels.map(
      ({ input, value }): BatchInput => ({
        name: value.name ?? input.name,
        ...tensorOf(value.type),
        role: 'label',
        ...(input.padding === undefined ? {} : { padding: input.padding }),
      }),
    ),
  ];
}

/** Dtype and shape of a tensor; an unknown rank counts as a scalar's, which no driver can pad. */
export function tensorOf(type: ValueType | undefined): { dtype: DType; shape: Shape[number][] } {
  return type?.kind === 'tensor'
    ? { dtype: type.dtype, shape: [...(type.shape ?? [])] }
    : { dtype: 'undefined', shape: [] };
}
