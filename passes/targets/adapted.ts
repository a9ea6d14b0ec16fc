/** The adapted inference graph: base and adapter unfused, adapter tensors as weights or as required inputs. */
import { cloneModel } from '../../src/clone.js';
import { redirectUses, Value } from '../../src/graph.js';
import { retype } from '../../src/infer/retype.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { DTYPE_CODES, tensorType } from '../../src/types.js';
import {
  type AdapterRecord,
  readAdapterRecord,
  trainableParams,
  writeAdapterRecord,
} from '../adapter-record.js';
import { refuseTogether } from '../adapters-together.js';
import { stripDropout } from '../dropout.js';
import { type ServingInput, type ServingOptions, servingInputs } from './serving.js';

/** Metadata of serving graphs, as JSON: what their inputs expect. */
export const SERVING_METADATA_KEY = 'peft_compile.serving';

export interface AdaptedOptions extends ServingOptions {
  /**
   * `weights`: adapter tensors are initializers. `inputs`: every trained tensor is a required input, so that one session
   * serves many adapters. Overridable initializers are no option: JS runtimes ignore the override.
   */
  readonly adapterIo: 'weights' | 'inputs';
}

/**
 * A copy of an adapted model for inference; dropout is gone. As inputs, tensors are by default those of the adapter, of
 * its ranks, and the scale is in the graph. Throws E_NO_MATCH when the model holds no adapter, E_USAGE for unknown names.
 */
export function emitAdapted(adapted: Model, { adapterIo, ...options }: AdaptedOptions): Model {
  const record = readAdapterRecord(adapted);
  refuseTogether(record, adapted.path ?? 'the model');
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
  const inputs = servingInputs(record, options);
  placeInputs(model, inputs);
  writeAdapterRecord(model, renamed(record, inputs));
  const { names: spelling = 'own', scale = 'graph', rank = 'fixed' } = options;
  model.metadata.set(SERVING_METADATA_KEY, JSON.stringify({ version: 1, names: spelling, scale, rank }));
  return model;
}

/** Puts inputs in the place of the parameters, behind what turns what is fed into what the graph was built for. */
function placeInputs(model: Model, inputs: readonly ServingInput[]): void {
  const { graph } = model;
  const stored = new Map([...graph.initializers].map((value) => [value.name, value]));
  const builder = new Builder(model, { provenance: 'adapter inputs' });
  const values = new Map(
    inputs.map(({ name, dtype, shape }) => [name, new Value({ name, type: tensorType(dtype, shape) })]),
  );
  const placed: { readonly from: Value; readonly to: Value }[] = [];
  const required: Value[] = [];
  for (const { name, kind, parameter, dtype, factor, scaledBy } of inputs) {
    const input = values.get(name) as Value;
    const from = stored.get(parameter);
    if (from?.tensor === undefined) continue;
    required.push(input);
    if (kind === 'scale') continue;
    const scale = scaledBy === undefined ? undefined : values.get(scaledBy);
    placed.push({ from, to: restored(builder, input, { dtype, wanted: from.tensor.dtype, factor, scale }) });
  }
  for (const { from, to } of placed) {
    redirectUses(from, to);
    graph.initializers.delete(from);
    const listed = graph.inputs.indexOf(from);
    if (listed >= 0) graph.inputs.splice(listed, 1);
  }
  for (const input of required) graph.addInput(input);
  for (const value of builder.initializers) graph.addInitializer(value);
  const [first] = graph.nodes();
  for (const node of builder.nodes)
    if (first === undefined) graph.append(node);
    else graph.insertBefore(first, node);
  retype(
    model,
    placed.map(({ to }) => to),
  );
}

interface Fed {
  readonly dtype: ServingInput['dtype'];
  readonly wanted: ServingInput['dtype'];
  /** s: the graph multiplies by it once more. */
  readonly factor: number;
  readonly scale: Value | undefined;
}

/** The parameter as the graph was built for it: B of what is fed, s·B or B and s'. */
function restored({ op }: Builder, input: Value, { dtype, wanted, factor, scale }: Fed): Value {
  const cast = (value: Value) => (dtype === wanted ? value : op.Cast(value, { to: DTYPE_CODES[wanted] }));
  const own = cast(input);
  const scaled = scale === undefined ? own : op.Mul(own, cast(scale));
  return factor === 1 ? scaled : op.Mul(scaled, 1 / factor);
}

/** The record with the names that the inputs have. */
function renamed(record: AdapterRecord, inputs: readonly ServingInput[]): AdapterRecord {
  const names = new Map(
    inputs.filter(({ kind }) => kind === 'parameter').map(({ parameter, name }) => [parameter, name]),
  );
  return {
    ...record,
    sites: record.sites.map((site) => ({
      ...site,
      params: Object.fromEntries(
        Object.entries(site.params).map(([role, param]) => [
          role,
          { ...param, name: names.get(param.name) ?? param.name },
        ]),
      ),
    })),
  };
}
