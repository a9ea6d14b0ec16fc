/**
 * Checkpoints: one safetensors file each, written atomically, with parameters (`param/<key>`), optimizer state
 * (`state/<input>`), what methods remember between steps (`procedure/<entry>/<name>`) and, in the metadata, where the run stood and what it was a run of. Data order, learning rate and
 * dropout seeds are functions of the step number, so the step is all the position there is.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { fail, PeftCompileError } from '../../src/errors.js';
import { type HostTensor, loadTensor } from '../host-tensor.js';
import { readSafetensors, writeSafetensors } from '../safetensors.js';

const METADATA_KEY = 'peft_compile.run';

/** What must be the same for a run to continue, as texts by name; a mismatch is reported under the name. */
export type Fingerprint = Readonly<Record<string, string>>;

const runSchema = z.object({
  version: z.literal(1),
  /** Optimizer steps done. */
  step: z.int().min(0),
  bestLoss: z.number().nullable(),
  /** Evaluations since the best one. */
  stale: z.int().min(0),
  /** An evaluation was due after this step, and was interrupted. */
  evaluationDue: z.boolean().default(false),
  /** Where a dynamic loss scale stood; null for graphs without one. */
  lossScale: z
    .object({ scale: z.number().positive(), steady: z.int().min(0), skipped: z.int().min(0) })
    .nullable()
    .default(null),
  fingerprint: z.record(z.string(), z.string()),
});
export type RunState = Omit<z.infer<typeof runSchema>, 'version'>;

export interface Checkpoint {
  readonly run: RunState;
  readonly params: ReadonlyMap<string, HostTensor>;
  readonly state: Readonly<Record<string, HostTensor>>;
  /** State of procedures by `<entry>/<name>`. */
  readonly procedures: ReadonlyMap<string, HostTensor>;
}

const NAME = /^step-(\d{8})\.safetensors$/;
export const BEST_NAME = 'best.safetensors';

function stepName(step: number): string {
  return `step-${String(step).padStart(8, '0')}.safetensors`;
}

/** Writes a checkpoint and returns its path. */
export async function saveCheckpoint(
  folder: string,
  checkpoint: Checkpoint,
  options: { readonly best: boolean } = { best: false },
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, options.best ? BEST_NAME : stepName(checkpoint.run.step));
  const tensors = new Map<string, HostTensor>();
  for (const [key, tensor] of checkpoint.params) tensors.set(`param/${key}`, tensor);
  for (const [name, tensor] of Object.entries(checkpoint.state)) tensors.set(`state/${name}`, tensor);
  for (const [name, tensor] of checkpoint.procedures) tensors.set(`procedure/${name}`, tensor);
  await writeSafetensors(path, tensors, {
    force: true,
    metadata: { [METADATA_KEY]: JSON.stringify({ version: 1, ...checkpoint.run }) },
  });
  return path;
}

/** @throws E_INVALID_DATA for a damaged file, naming the checkpoint before it, if there is one. */
export async function loadCheckpoint(path: string): Promise<Checkpoint> {
  try {
    return await readCheckpoint(path);
  } catch (cause) {
    if (!(cause instanceof PeftCompileError && cause.code === 'E_INVALID_DATA')) throw cause;
    const step = Number(NAME.exec(basename(path))?.[1] ?? 0);
    const folder = dirname(path);
    const before = (await checkpointSteps(folder)).filter((other) => other < step).at(-1);
    return fail('E_INVALID_DATA', {
      message: `The checkpoint cannot be used: ${cause.message}`,
      where: path,
      remedy:
        before === undefined
          ? 'Give a checkpoint of this run, or start a new run.'
          : `Resume from the one before it: ${join(folder, stepName(before))}`,
      cause,
    });
  }
}

async function readCheckpoint(path: string): Promise<Checkpoint> {
  const { tensors, metadata } = readSafetensors(path);
  let json: unknown;
  try {
    json = JSON.parse(metadata.get(METADATA_KEY) ?? 'null');
  } catch {
    json = null;
  }
  const run = runSchema.safeParse(json);
  if (!run.success)
    return fail('E_INVALID_DATA', {
      message: 'The file is no training checkpoint',
      where: path,
      remedy: 'Give a file from the checkpoints folder of a run.',
    });
  const params = new Map<string, HostTensor>();
  const state: Record<string, HostTensor> = {};
  const procedures = new Map<string, HostTensor>();
  for (const [name, tensor] of tensors) {
    const [kind, key] = split(name);
    if (kind === 'param') params.set(key, await loadTensor(tensor));
    else if (kind === 'state') state[key] = await loadTensor(tensor);
    else if (kind === 'procedure') procedures.set(key, await loadTensor(tensor));
  }
  return { run: run.data, params, state, procedures };
}

/** The checkpoint with the most steps in a folder. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const steps = await checkpointSteps(folder);
  const last = steps.at(-1);
  return last === undefined ? undefined : join(folder, stepName(last));
}

/**
 * Removes all but the `keep` newest checkpoints up to `step`; the best one is a file of its own and stays, and so do
 * later ones, of a run that was resumed from an earlier step.
 */
export async function pruneCheckpoints(folder: string, keep: number, step: number): Promise<void> {
  const steps = (await checkpointSteps(folder)).filter((other) => other <= step);
  for (const step of steps.slice(0, Math.max(0, steps.length - keep)))
    await rm(join(folder, stepName(step)), { force: true });
}

/** Removes all checkpoints of a folder, and nothing else. */
export async function clearCheckpoints(folder: string): Promise<void> {
  for (const step of await checkpointSteps(folder)) await rm(join(folder, stepName(step)), { force: true });
  await rm(join(folder, BEST_NAME), { force: true });
}

/** Throws E_INVALID_DATA naming the first setting in which a checkpoint and the run that wants it differ. */
export function checkFingerprint(found: Fingerprint, wanted: Fingerprint, path: string): void {
  for (const [name, value] of Object.entries(wanted))
    if (found[name] !== value)
      fail('E_INVALID_DATA', {
        message: `The checkpoint belongs to another run: its ${name} is ${found[name] ?? 'unknown'}, this run has ${value}`,
        where: path,
        remedy: 'Resume with the same graphs, data and settings, or start a new run in another folder.',
      });
}

async function checkpointSteps(folder: string): Promise<number[]> {
  if (!existsSync(folder)) return [];
  const steps: number[] = [];
  for (const name of await readdir(folder)) {
    const match = NAME.exec(name);
    if (match !== null) steps.push(Number(match[1]));
  }
  return steps.sort((a, b) => a - b);
}

function split(name: string): [string, string] {
  const slash = name.indexOf('/');
  return [name.slice(0, slash), name.slice(slash + 1)];
}
