/** Insertion and folding of one method with random parameters: what it changes, and whether the fold computes the same. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attachAdapter, type InsertOptions } from '../../passes/insert/insert.js';
import { modelTensors, readAdapter, writeAdapter } from '../../runtime/adapter-file.js';
import { defaultTolerance, difference } from '../../runtime/compare.js';
import { fold } from '../../runtime/fold/fold.js';
import { insert } from '../../runtime/library/insert.js';
import { openModel } from '../../runtime/model-session.js';
import type { SessionHost, Tensors } from '../../runtime/session.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';

/** All outputs of a model for every batch, by `<batch>.<output>`. */
export async function outputsOf(
  host: SessionHost,
  source: string | Model,
  batches: readonly Tensors[],
): Promise<Tensors> {
  const { session, dispose } = await openModel(host, source);
  const found: Record<string, Tensors[string]> = {};
  try {
    for (const [i, batch] of batches.entries())
      for (const [name, tensor] of Object.entries(await session.run(batch))) found[`${i}.${name}`] = tensor;
  } finally {
    await dispose();
  }
  return found;
}

/** Largest difference of any output over the scale of that output. */
export function worst(a: Tensors, b: Tensors): number {
  return Math.max(...Object.entries(a).map(([name, tensor]) => difference(tensor, b[name]!, name).relative));
}

/** By how many tolerances an adapter must change the output; that of bfloat16 is half of the output's scale. */
export const EFFECT = 1.5;

/**
 * Random parameters in turn, until the effect is enough: adapters of a realistic size where they show a hundred times
 * over, so that a wrong scale shows too; larger ones for dtypes that hide those.
 */
const DRAWS = [
  { std: 0.1, enough: 100 },
  { std: 0.4, enough: EFFECT },
  { std: 1, enough: EFFECT },
  { std: 3, enough: EFFECT },
] as const;

export interface AdapterCheck {
  /** Change of the outputs by the adapter. */
  readonly effect: number;
  /** Difference of the folded and the unfolded model, and what rounding explains. */
  readonly error: number;
  readonly tolerance: number;
  readonly proved: boolean;
  readonly sites: number;
}

/** Inserts, compares with the base, whose outputs may be at hand; with `folds`, folds and compares with the unfolded model. */
export async function checkAdapter(
  host: SessionHost,
  path: string,
  batches: readonly Tensors[],
  options: InsertOptions & { readonly folds?: boolean; readonly base?: Tensors },
): Promise<AdapterCheck> {
  const { folds = true, base: known, ...settings } = options;
  const paths = options.paths === undefined ? {} : { paths: options.paths };
  const folder = mkdtempSync(join(tmpdir(), 'models-'));
  try {
    const model = readModel(path);
    const { record } = await insert(model, settings);
    const base = known ?? (await outputsOf(host, path, batches));
    const file = join(folder, 'adapter.safetensors');
    const tolerance = defaultTolerance(model);
    // A base that was not folded must fail the comparison, and not narrowly: half precision hides small changes.
    let adapted: Tensors = {};
    let effect = 0;
    for (const [draw, { std, enough }] of DRAWS.entries()) {
      await writeAdapter(file, record, randomParameters(record, model, { seed: 7 + draw, std }), {
        force: true,
      });
      const attached = readModel(path);
      attachAdapter(attached, record, await modelTensors(await readAdapter(file)), paths);
      adapted = await outputsOf(host, attached, batches);
      effect = worst(base, adapted);
      if (effect > enough * tolerance) break;
    }
    const check = { effect, tolerance, sites: record.sites.length };
    if (!folds) return { ...check, error: 0, proved: true };
    const out = join(folder, 'merged.onnx');
    const { proof } = await fold({ model: path, adapter: file, out, ...paths });
    const folded = await outputsOf(host, out, batches);
    return { ...check, error: worst(adapted, folded), proved: proof?.holds === true };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
