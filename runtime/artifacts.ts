/** Training artifacts: the graphs of the step target, their manifest and the untrained adapter. */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type AdapterRecord, readAdapterRecord } from '../passes/adapter-record.js';
import { type StepManifest, stepManifestSchema } from '../passes/targets/manifest.js';
import type { StepArtifacts } from '../passes/targets/step.js';
import { fail } from '../src/errors.js';
import type { Model } from '../src/model.js';
import { atomicWrite, type WriteOptions, writeModel } from '../src/onnx/index.js';
import { reason } from '../src/onnx/source.js';
import { describeIssues } from '../src/zod-issues.js';
import { readTrained, writeAdapter } from './adapter-file.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from './host-tensor.js';
import type { ModelSource } from './model-session.js';

export const MANIFEST_FILE = 'manifest.json';
export const INITIAL_FILE = 'initial.safetensors';

const GRAPHS = ['step', 'grad', 'update', 'eval'] as const;
export type GraphName = (typeof GRAPHS)[number];

export interface TrainArtifacts {
  readonly manifest: StepManifest;
  /** Graphs by role: paths, bytes or models. */
  readonly graphs: Readonly<Partial<Record<GraphName, ModelSource>>>;
  readonly record: AdapterRecord;
  /** First values of all tensors of the adapter by key, the frozen ones included. */
  readonly initial: ReadonlyMap<string, HostTensor>;
}

/** Artifacts of an emitted step target that stay in memory. */
export async function artifactsInMemory(emitted: StepArtifacts, adapted: Model): Promise<TrainArtifacts> {
  const { manifest, ...graphs } = emitted;
  const record = readAdapterRecord(adapted);
  return { manifest, graphs, record, initial: await initialTensors(adapted, record, manifest) };
}

/** Reads a folder that `writeArtifacts` (or `peft-compile emit --target step`) wrote. */
export async function loadArtifacts(folder: string): Promise<TrainArtifacts> {
  const manifest = await readManifest(join(folder, MANIFEST_FILE));
  const graphs: Partial<Record<GraphName, string>> = {};
  for (const name of GRAPHS) {
    const file = manifest.graphs[name]?.file;
    if (file !== undefined) graphs[name] = join(folder, file);
  }
  const { record, tensors } = await readTrained(join(folder, INITIAL_FILE));
  const initial = new Map<string, HostTensor>();
  for (const [key, tensor] of tensors) initial.set(key, await loadTensor(tensor));
  return { manifest, graphs, record, initial };
}

/** Writes graphs, first values and, last, the manifest. External weights of the base are copied or linked beside them. */
export async function writeArtifacts(
  folder: string,
  emitted: StepArtifacts,
  adapted: Model,
  options: Pick<WriteOptions, 'force' | 'weights'> = {},
): Promise<string[]> {
  const { force = false, weights = 'copy' } = options;
  await mkdir(folder, { recursive: true });
  const { manifest } = emitted;
  const written: string[] = [];
  for (const name of GRAPHS) {
    const model = emitted[name];
    const file = manifest.graphs[name]?.file;
    if (model === undefined || file === undefined) continue;
    const path = join(folder, file);
    // The graphs share data files: those that an earlier one brought along are there already, and are the same.
    const ours = written.length > 0 && !existsSync(path);
    await writeModel(model, path, { force: force || ours, weights });
    written.push(path);
  }
  const initial = join(folder, INITIAL_FILE);
  const record = readAdapterRecord(adapted);
  await writeAdapter(initial, record, await initialTensors(adapted, record, manifest), {
    force,
  });
  const path = join(folder, MANIFEST_FILE);
  await atomicWrite(path, { force }, async (sink) => {
    await sink.write(new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
  });
  return [...written, initial, path];
}

export async function readManifest(path: string): Promise<StepManifest> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    return fail(cause instanceof SyntaxError ? 'E_INVALID_DATA' : 'E_IO', {
      message: `Cannot read the training manifest: ${reason(cause)}`,
      where: path,
      remedy: 'Emit the training graphs first: peft-compile emit --target step',
      cause,
    });
  }
  const parsed = stepManifestSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  return fail('E_INVALID_DATA', {
    message: `The training manifest is malformed: ${describeIssues(parsed.error)}`,
    where: path,
    remedy: 'Emit the training graphs again.',
  });
}

/** Values of the adapter's tensors in an adapted model; trained ones in the dtype that is trained. */
export async function initialTensors(
  adapted: Model,
  record: AdapterRecord,
  manifest: StepManifest,
): Promise<Map<string, HostTensor>> {
  const values = new Map([...adapted.graph.initializers].map((value) => [value.name ?? value.hint, value]));
  const trained = new Map(manifest.params.map((param) => [param.key, param]));
  const initial = new Map<string, HostTensor>();
  for (const site of record.sites)
    for (const { key, name, shape, dtype } of Object.values(site.params)) {
      if (initial.has(key)) continue;
      const tensor = values.get(name)?.tensor;
      if (tensor === undefined)
        fail('E_NO_MATCH', {
          message: `The adapted model has no initializer '${name}' for parameter '${key}'`,
          remedy: 'Emit from the model that insert wrote, adapters as initializers.',
        });
      initial.set(key, castTo(await loadTensor(tensor), trained.get(key)?.dtype ?? dtype, shape, key));
    }
  return initial;
}

function castTo(
  tensor: HostTensor,
  dtype: HostTensor['dtype'],
  shape: readonly number[],
  where: string,
): HostTensor {
  if (tensor.dims.length !== shape.length || tensor.dims.some((dim, i) => dim !== shape[i]))
    fail('E_INVALID_DATA', {
      message: `The parameter has shape [${tensor.dims.join(', ')}], the graphs take [${shape.join(', ')}]`,
      where,
      remedy: 'Give an adapter that was made for these graphs.',
    });
  return tensor.dtype === dtype ? tensor : tensorOfNumbers(dtype, shape, numbersOf(tensor));
}
