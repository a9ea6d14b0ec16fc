/** One method on the quickstart's language model, from insertion to fold. */
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type AdapterRecord, allParams } from '../../../passes/adapter-record.js';
import { attachAdapter } from '../../../passes/insert/insert.js';
import { resolveMethod } from '../../../passes/methods/registry.js';
import { readModel, writeModel } from '../../../src/onnx/index.js';
import { countOf, isFloat } from '../../../src/types.js';
import { modelTensors, readAdapter } from '../../adapter-file.js';
import { loadTokenizer } from '../../data/tokenizer.js';
import { fold } from '../../fold/fold.js';
import { emit } from '../../library/emit.js';
import { insert } from '../../library/insert.js';
import { train } from '../../train/train.js';
import { repositoryFile } from '../root.js';
import type { BenchTask } from '../task.js';

const quickstart = (name: string) => repositoryFile('fixtures', 'quickstart', name);

/**
 * Inserts a method, trains it on the quickstart's text, folds what folds, and leaves `unfolded.onnx` and
 * `folded.onnx` in the folder.
 */
export const method: BenchTask = async (input) => {
  const { id, config, steps, out, threads } = z
    .object({
      id: z.string(),
      config: z.record(z.string(), z.unknown()),
      steps: z.int(),
      out: z.string(),
      threads: z.int(),
    })
    .parse(input);
  const { learningRate } = resolveMethod(id);
  await mkdir(out, { recursive: true });
  const base = quickstart('model.onnx');
  const model = readModel(base);
  const { trainable, record } = await insert(model, { method: id, config });
  const artifacts = await emit(model, {
    target: 'step',
    loss: 'causal-lm',
    clip: 1,
    schedule: { id: 'cosine', learningRate, warmupSteps: Math.ceil(steps / 12) },
  });
  const { evals, adapter, seconds } = await train({
    artifacts,
    data: quickstart('train.txt'),
    evalData: quickstart('validation.txt'),
    load: { tokenizer: loadTokenizer(quickstart('tokenizer.json')), maxLength: 128 },
    out: join(out, 'run'),
    batchSize: 8,
    maxSteps: steps,
    evalFirst: true,
    session: { threads },
  });
  const path = adapter ?? '';
  const file = await readAdapter(path);
  const unfolded = readModel(base);
  attachAdapter(unfolded, file.record, await modelTensors(file));
  await writeModel(unfolded, join(out, 'unfolded.onnx'), { force: true });
  const plan = await fold({ model: base, adapter: path });
  const folds = plan.tensors.length > 0;
  if (folds)
    await fold({ model: base, adapter: path, out: join(out, 'folded.onnx'), keep: true, force: true });
  return {
    modules: record.sites.length,
    trainable,
    stored: storedOf(file.record),
    storedBytes: (await stat(path)).size,
    lossBefore: evals[0]?.loss,
    lossAfter: evals.at(-1)?.loss,
    stepMs: (1000 * seconds) / steps,
    folds: folds ? (plan.impossible.length === 0 ? 'yes' : 'partly') : 'no',
    reason: plan.impossible[0]?.reason ?? null,
  };
};

/** Numbers in the adapter file; indices count as the numbers they point at do not. */
function storedOf(record: AdapterRecord): number {
  return allParams(record)
    .filter(({ dtype }) => isFloat(dtype))
    .reduce((sum, { shape }) => sum + countOf(shape), 0);
}
