/** From trained parameters to the adapter file: frozen tensors join them, training-only structure is evaluated and dropped. */
import {
  ADAPTER_METADATA_KEY,
  type AdapterRecord,
  allParams,
  readAdapterRecord,
} from '../../passes/adapter-record.js';
import { takeAdapter } from '../../passes/adapters-together.js';
import { fail } from '../../src/errors.js';
import { Model } from '../../src/model.js';
import { readTrained, writeAdapter } from '../adapter-file.js';
import type { TrainArtifacts } from '../artifacts.js';
import {
  type CollapsedAdapter,
  checkCollapse,
  collapseAdapter,
  collapsedRecord,
  collapseReadsBase,
  storedElements,
} from '../collapse.js';
import { type HostTensor, loadTensor } from '../host-tensor.js';
import { decoded } from '../model-session.js';
import { readSafetensors } from '../safetensors.js';
import { loadCheckpoint } from './checkpoint.js';

/** The adapter that stands for parameters by key: what `train` saves at the end. */
export async function trainedAdapter(
  artifacts: TrainArtifacts,
  params: ReadonlyMap<string, HostTensor>,
): Promise<CollapsedAdapter> {
  const tensors = new Map([...artifacts.initial, ...params]);
  return collapseAdapter({ record: artifacts.record, tensors }, baseOf(artifacts));
}

/** Writes the adapter file of parameters by key. */
export async function writeTrained(
  path: string,
  artifacts: TrainArtifacts,
  params: ReadonlyMap<string, HostTensor>,
  options: { readonly force?: boolean } = {},
): Promise<void> {
  const { record, tensors } = await trainedAdapter(artifacts, params);
  await writeAdapter(path, record, tensors, options);
}

export interface OfCheckpointOptions {
  /** Name of the adapter, of several that train together. */
  readonly take?: string;
  readonly force?: boolean;
}

/**
 * Writes the adapter file of a checkpoint, which holds the parameters as they are trained, or of the file that a run wrote
 * at its end.
 * @param of What was trained: the artifacts, or the adapted model.
 * @throws E_INVALID_DATA for a file that is no checkpoint of it, E_NO_MATCH for an adapter that it does not hold, E_EXISTS.
 */
export async function adapterOfCheckpoint(
  of: TrainArtifacts | Model,
  checkpoint: string,
  out: string,
  { take, force = false }: OfCheckpointOptions = {},
): Promise<CollapsedAdapter> {
  const { record, initial, base } = of instanceof Model ? await fromModel(of) : fromArtifacts(of);
  const params = await paramsOf(checkpoint);
  const shapes = new Map(allParams(record).map(({ key, shape }) => [key, shape.join()]));
  for (const [key, { dims }] of params)
    if (shapes.get(key) !== dims.join())
      fail('E_INVALID_DATA', {
        message: `The checkpoint's '${key}' [${dims.join(', ')}] is no parameter of the model`,
        where: checkpoint,
        remedy: 'Give the adapted model, or the graphs, that the run trained.',
      });
  const whole = await collapseAdapter({ record, tensors: new Map([...initial, ...params]) }, base);
  const adapter = take === undefined ? whole : takeAdapter(whole.record, whole.tensors, take);
  await writeAdapter(out, adapter.record, adapter.tensors, { force });
  return adapter;
}

/** Parameters of a checkpoint, or of an adapter file. */
async function paramsOf(checkpoint: string): Promise<ReadonlyMap<string, HostTensor>> {
  if (!isAdapter(checkpoint)) return (await loadCheckpoint(checkpoint)).params;
  const { tensors } = await readTrained(checkpoint);
  return new Map(
    await Promise.all([...tensors].map(async ([key, tensor]) => [key, await loadTensor(tensor)] as const)),
  );
}

/** False for files that cannot be read, of which a checkpoint's reader has more to say. */
function isAdapter(path: string): boolean {
  try {
    return readSafetensors(path).metadata.has(ADAPTER_METADATA_KEY);
  } catch {
    return false;
  }
}

interface Source {
  readonly record: AdapterRecord;
  readonly initial: ReadonlyMap<string, HostTensor>;
  readonly base: Model | undefined;
}

function fromArtifacts(artifacts: TrainArtifacts): Source {
  return { record: artifacts.record, initial: artifacts.initial, base: baseOf(artifacts) };
}

async function fromModel(model: Model): Promise<Source> {
  const record = readAdapterRecord(model);
  const stored = new Map([...model.graph.initializers].map(({ name, tensor }) => [name, tensor]));
  const initial = new Map<string, HostTensor>();
  for (const { key, name } of allParams(record)) {
    const tensor = stored.get(name);
    if (tensor !== undefined) initial.set(key, await loadTensor(tensor));
  }
  return { record, initial, base: model };
}

/** Elements of the adapter file. Throws E_INVALID_DATA when it could not be written for want of the base's tensors. */
export function checkSaving(artifacts: TrainArtifacts): number {
  checkCollapse(artifacts.record, baseOf(artifacts));
  return storedElements(collapsedRecord(artifacts.record));
}

/** The eval graph, which holds the base's tensors; undefined where saving reads none of them. */
function baseOf({ record, graphs }: TrainArtifacts): Model | undefined {
  return collapseReadsBase(record) && graphs.eval !== undefined ? decoded(graphs.eval) : undefined;
}
