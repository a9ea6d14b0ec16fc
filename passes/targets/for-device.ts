/** Training graphs in the form that stays on a device, for batches of one size: for pages, where no pass runs. */
import { evaluateDim } from '../../src/dims.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { symbolsOf } from '../memory/plan.js';
import type { DimSizes } from '../memory/sizes.js';
import type { InputSizes } from '../portable/bind-sizes.js';
import { type DeviceNeeds, lowerForDevice } from '../portable/device.js';
import { tensorOf } from './describe.js';
import type { StepArtifacts } from './step.js';

/**
 * The artifacts lowered for a device; `manifest.batch` says what its graphs take. `sizes`: a number for every symbolic
 * dimension of the batch. Throws E_USAGE when one is missing.
 */
export function lowerStep(
  { manifest, ...models }: StepArtifacts,
  needs: DeviceNeeds,
  sizes: DimSizes,
): StepArtifacts {
  const lower = <T extends Model | undefined>(model: T): T =>
    model === undefined ? model : (lowerForDevice(model, needs, inputSizes(model, sizes)) as T);
  const { step, grad, update } = models;
  const lowered = {
    ...(step === undefined ? {} : { step: lower(step) }),
    ...(grad === undefined ? {} : { grad: lower(grad) }),
    ...(update === undefined ? {} : { update: lower(update) }),
    eval: lower(models.eval),
  };
  const inputs = new Map(
    Object.values(lowered).flatMap(({ graph }) =>
      graph.inputs.map(({ name, type }) => [name, type] as const),
    ),
  );
  const batch = manifest.batch.map((spec) => ({ ...spec, ...tensorOf(inputs.get(spec.name)) }));
  return { ...lowered, manifest: { ...manifest, batch } };
}

function inputSizes({ graph }: Model, sizes: DimSizes): InputSizes {
  const missing = symbolsOf(graph).filter((symbol) => !sizes.has(symbol));
  if (missing.length > 0)
    fail('E_USAGE', {
      message: `No size for ${missing.join(', ')}: graphs for a device are made for one size`,
      remedy: `Give a number for each of ${symbolsOf(graph).join(', ')}`,
    });
  return Object.fromEntries(
    graph.inputs.flatMap(({ name, type }) =>
      name === undefined || type?.kind !== 'tensor' || type.shape === null
        ? []
        : [[name, type.shape.map((dim) => evaluateDim(dim, sizes) ?? 0)]],
    ),
  );
}
