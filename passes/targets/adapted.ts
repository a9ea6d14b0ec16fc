/** The adapted inference graph: base and adapter unfused, adapter tensors as weights or as required inputs. */
import { cloneModel } from '../../src/clone.js';
import { redirectUses, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { tensorType } from '../../src/types.js';
import { readAdapterRecord, trainableParams } from '../adapter-record.js';
import { stripDropout } from '../dropout.js';

export interface AdaptedOptions {
  /**
   * `weights`: adapter tensors are initializers. `inputs`: every trained tensor is a required input of its stored dtype,
   * so that one session serves many adapters. Overridable initializers are no option: JS runtimes ignore the override.
   */
  readonly adapterIo: 'weights' | 'inputs';
}

/** A copy of an adapted model for inference; dropout is gone. Throws E_NO_MATCH when the model holds no adapter. */
export function emitAdapted(adapted: Model, { adapterIo }: AdaptedOptions): Model {
  const record = readAdapterRecord(adapted);
  const { model } = cloneModel(adapted);
  stripDropout(model);
  const { graph } = model;
  const names = new Set(trainableParams(record).map(({ name }) => name));
  if (adapterIo === 'weights') {
    // An initializer that is listed as an input too would be overridable.
    const required = graph.inputs.filter(
      (value) => !names.has(value.name ?? '') || value.tensor === undefined,
    );
    graph.inputs.splice(0, graph.inputs.length, ...required);
    return model;
  }
  for (const stored of [...graph.initializers]) {
    if (stored.name === undefined || stored.tensor === undefined || !names.has(stored.name)) continue;
    const { dtype, dims } = stored.tensor;
    const input = new Value({ name: stored.name, type: tensorType(dtype, dims) });
    redirectUses(stored, input);
    graph.initializers.delete(stored);
    const listed = graph.inputs.indexOf(stored);
    if (listed >= 0) graph.inputs.splice(listed, 1);
    graph.addInput(input);
  }
  return model;
}
