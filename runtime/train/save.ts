/** From trained parameters to the adapter file: frozen tensors join them, training-only structure is evaluated and dropped. */
import { type AdapterRecord, allParams, readAdapterRecord } from '../../passes/adapter-record.js';
import { fail } from '../../src/errors.js';
import { Model } from '../../src/model.js';
import { writeAdapter } from '../adapter-file.js';
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

/**
 * Writes the adapter file of a checkpoint, which holds the parameters as they are trained.
 * @param of What was trained: the artifacts, or the adapted model.
 * @throws E_INVALID_DATA for a file that is no checkpoint of it, E_EXISTS.
 */
export async function adapterOfCheckpoint(
  of: TrainArtifacts | Model,
  checkpoint: string,
  out: string,
  options: { readonly force?: boolean } = {},
): Promise<CollapsedAdapter> {
  const { record, initial, base } = of instanceof Model ? await fromModel(of) : fromArtifacts(of);
  const { params } = await loadCheckpoint(checkpoint);
  const shapes = new Map(allParams(record).map(({ key, shape }) => [key, shape.join()]));
  for (const [key, { dims }] of params)
    if (shapes.get(key) !== dims.join())
      fail('E_INVALID_DATA', {
        message: `The checkpoint's '${key}' [${dims.join(', ')}] is no parameter of the model`,
        where: checkpoint,
        remedy: 'Give the adapted model, or the graphs, that the run trained.',
      });
  const adapter = await collapseAdapter({ record, tensors: new Map([...initial, ...params]) }, base);
  await writeAdapter(out, adapter.record, adapter.tensors, options);
  return adapter;
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
