/** Serving graphs: a base with slots for adapters. */
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import { type ServingInput, type ServingOptions, servingInputs } from '../../passes/targets/serving.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { readModel, type WriteOptions, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { type AdapterFile, readAdapter } from '../adapter-file.js';
import { neutralTensors } from '../export/neutral-tensors.js';
import { unscaledAdapter } from '../export/rescale.js';
import { type AttachTrainedOptions, attach } from './attach.js';

export interface ServeOptions extends ServingOptions, Omit<AttachTrainedOptions, 'run'> {
  /** The base. */
  readonly model: string | Model;
  /** An adapter of the structure that the graph is for; its numbers are not in the graph. */
  readonly adapter: string | AdapterFile;
  /**
   * Inputs have the values of no adapter as defaults, so that whoever feeds nothing gets the base. JavaScript runtimes
   * ignore what is fed to such inputs; C, C++, C#, Java, Python and ORT GenAI do not. Default false.
   */
  readonly optional?: boolean;
  /** Path of the serving graph; absent to keep it in memory. */
  readonly out?: string;
  readonly force?: boolean;
  readonly write?: Pick<WriteOptions, 'externalData' | 'weights'>;
}

export interface ServingModel {
  readonly model: Model;
  /** What has to be fed beside the base's own inputs. */
  readonly inputs: readonly ServingInput[];
  /** Tensors with which the graph computes what the base computes, or why there are none. */
  readonly none: ReadonlyMap<string, Tensor> | string;
}

/**
 * The base with slots for adapters as required inputs. By default adapters may have any rank, zero for none, and right
 * factors hold the scale, as `export --format onnx_adapter` writes them. The base is not changed, and a graph that is
 * written shares its external data.
 * @throws E_INVALID_DATA for an adapter of another base, E_NO_MATCH for a module that the model lacks, E_UNSUPPORTED for
 * names that lack a tensor, E_EXISTS.
 */
export async function serve(options: ServeOptions): Promise<ServingModel> {
  const { model: given, adapter, out, force = false, write = {}, optional, anyBase, peft, ...rest } = options;
  const settings: ServingOptions = { ...rest, scale: rest.scale ?? 'factor', rank: rest.rank ?? 'free' };
  const { methods, scale } = settings;
  const base = typeof given === 'string' ? readModel(given) : given;
  const { model: adapted } = cloneModel(base);
  const { paths } = options;
  const file =
    typeof adapter === 'string'
      ? await readAdapter(adapter, {
          base,
          ...peft,
          ...(methods === undefined ? {} : { methods }),
          ...(paths === undefined ? {} : { paths }),
        })
      : adapter;
  await attach(adapted, scale === 'graph' ? file : await unscaledAdapter(file, methods), {
    anyBase: anyBase ?? false,
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  });
  const record = readAdapterRecord(adapted);
  const model = emitAdapted(adapted, { ...settings, adapterIo: 'inputs' });
  const inputs = servingInputs(record, settings);
  const none = await neutralTensors(base, record, inputs, options);
  if (optional === true) giveDefaults(model, none);
  if (out !== undefined) await writeModel(model, out, { ...write, force });
  return { model, inputs, none };
}

/** Makes the inputs overridable initializers. */
function giveDefaults(model: Model, none: ReadonlyMap<string, Tensor> | string): void {
  if (typeof none === 'string')
    fail('E_UNSUPPORTED', { message: none, remedy: 'Leave the inputs without defaults' });
  for (const value of model.graph.inputs) {
    const tensor = none.get(value.name ?? '');
    if (tensor === undefined) continue;
    value.tensor = tensor;
    model.graph.addInitializer(value);
  }
}
