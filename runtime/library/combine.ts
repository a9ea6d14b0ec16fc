/** Several adapter files and their base as one model. */

import { allParams } from '../../passes/adapter-record.js';
import {
  type CombineReport,
  type CombineSettings,
  combineAdapters,
  type NamedAdapter,
} from '../../passes/combine/combine.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { type AdapterFile, modelTensors, readAdapter } from '../adapter-file.js';
import { digestBytes, digestWeights } from '../digest.js';
import { alignRanks } from '../export/align-ranks.js';
import { loadTensor } from '../host-tensor.js';

export interface CombineOptions extends CombineSettings {
  readonly model: string | Model;
  /** Adapters by the name they are chosen by, in the order of their indices. */
  readonly adapters: Readonly<Record<string, string | AdapterFile>>;
  /** Path of the combined model; absent to keep it in memory. */
  readonly out?: string;
  readonly force?: boolean;
  /** Also take adapters that were trained on other weights. */
  readonly anyBase?: boolean;
}

export interface Combined extends CombineReport {
  readonly model: Model;
}

/**
 * One inference model with several adapters, chosen at every run by an int64 scalar input, or with `by: 'row'` by an
 * int64 [batch] input for every row of the batch: index 0 is the base, the others follow in the order given (`names` of the
 * result, also in the model's metadata). Adapters of one structure cost what one of them costs, low-rank ones of different
 * rank what the largest costs; each further structure at a module adds its own. The base model is not changed.
 * @throws E_INVALID_DATA for an adapter of another base, E_NO_MATCH for a module that the model lacks, E_USAGE for names
 * that do not fit, E_UNSUPPORTED for methods that add to the sequence beside others and, by row, for those that change
 * weights, E_EXISTS.
 */
export async function combine(options: CombineOptions): Promise<Combined> {
  const { model: source, adapters, out, force = false, anyBase = false, ...settings } = options;
  const base = typeof source === 'string' ? readModel(source) : source;
  const digest = anyBase ? undefined : await digestWeights(base);
  const { methods, paths } = settings;
  const foreign = {
    base,
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  };
  const known = new Map<string, Tensor>();
  const named: NamedAdapter[] = [];
  const files: { readonly name: string; readonly file: AdapterFile }[] = [];
  for (const [name, adapter] of Object.entries(adapters)) {
    const file = typeof adapter === 'string' ? await readAdapter(adapter, foreign) : adapter;
    checkBase(name, file, digest);
    files.push({ name, file });
  }
  const given = files.map(({ file }) => file);
  // What trains keeps its ranks, and its scales outside the factors: optimizers would take other steps.
  const aligned = settings.trainable === true ? given : await alignRanks(given, settings.methods);
  for (const [i, { name }] of files.entries()) {
    const file = aligned[i] as AdapterFile;
    named.push({ name, record: file.record, tensors: await sharedTensors(file, known) });
  }
  const { model } = cloneModel(base);
  const report = combineAdapters(model, named, settings);
  if (out !== undefined) await writeModel(model, out, { force });
  return { ...report, model };
}

function checkBase(name: string, { record }: AdapterFile, digest: string | undefined): void {
  if (digest !== undefined && record.base !== undefined && record.base !== digest)
    fail('E_INVALID_DATA', {
      message: `The adapter '${name}' was trained on a model with other weights`,
      remedy: 'Pass the base model of its training run, or --any-base to combine all the same',
    });
}

/** The adapter's tensors; frozen ones that an earlier adapter has as well are that adapter's. */
async function sharedTensors(file: AdapterFile, known: Map<string, Tensor>): Promise<Map<string, Tensor>> {
  const tensors = await modelTensors(file);
  for (const { key, trainable } of allParams(file.record)) {
    const tensor = tensors.get(key);
    if (trainable || tensor === undefined) continue;
    const { dtype, dims, bytes } = await bytesOf(tensor);
    const id = `${dtype} ${dims.join(',')} ${digestBytes(bytes)}`;
    const earlier = known.get(id);
    if (earlier === undefined) known.set(id, tensor);
    else tensors.set(key, earlier);
  }
  return tensors;
}

async function bytesOf(tensor: Tensor) {
  const { dtype, dims, data } = await loadTensor(tensor);
  return { dtype, dims, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}
