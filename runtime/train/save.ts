/** From trained parameters to the adapter file: frozen tensors join them, training-only structure is evaluated and dropped. */
import type { Model } from '../../src/model.js';
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
import type { HostTensor } from '../host-tensor.js';
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
 * @throws E_INVALID_DATA for a file that is no checkpoint of these artifacts, E_EXISTS.
 */
export async function adapterOfCheckpoint(
  artifacts: TrainArtifacts,
  checkpoint: string,
  out: string,
  options: { readonly force?: boolean } = {},
): Promise<void> {
  const { params } = await loadCheckpoint(checkpoint);
  await writeTrained(out, artifacts, params, options);
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
