/** Writes what the measured tasks read; not measured. */
import { z } from 'zod';
import { attachAdapter } from '../../../passes/insert/insert.js';
import { emitStep } from '../../../passes/targets/step.js';
import { initTensor, normal } from '../../../src/initializer.js';
import { readModel, writeModel } from '../../../src/onnx/index.js';
import type { Tensor } from '../../../src/tensor.js';
import { modelTensors, readAdapter, writeAdapter } from '../../adapter-file.js';
import { writeArtifacts } from '../../artifacts.js';
import { digestWeights } from '../../digest.js';
import { bertClassifier, bertShape } from '../models/bert.js';
import type { BenchTask } from '../task.js';
import { withLora } from './lora.js';

const targets = z.union([z.literal('all-linear'), z.array(z.string())]);

/** A BERT classifier as a file. */
export const writeBert: BenchTask = async (input) => {
  const given = z
    .object({ shape: bertShape, out: z.string(), externalData: z.enum(['inline', 'file']) })
    .parse(input);
  await writeModel(bertClassifier(given.shape), given.out, { externalData: given.externalData });
  return {};
};

/** Training artifacts of a model with LoRA. */
export const writeSteps: BenchTask = async (input) => {
  const { model, out, rank, accumulation, recompute } = z
    .object({
      model: z.string(),
      out: z.string(),
      rank: z.int(),
      accumulation: z.int(),
      recompute: z.union([z.boolean(), z.int()]).default(false),
    })
    .parse(input);
  const adapted = readModel(model);
  withLora(adapted, rank, ['query', 'value']);
  const emitted = emitStep(adapted, { loss: 'classification', clip: 1, accumulation, recompute });
  await writeArtifacts(out, emitted, adapted);
  return {};
};

/** An adapter with random numbers, as if it had been trained. */
export const writeRandomAdapter: BenchTask = async (input) => {
  const given = z.object({ model: z.string(), out: z.string(), rank: z.int(), targets }).parse(input);
  const { record } = withLora(readModel(given.model), given.rank, given.targets);
  const tensors = new Map<string, Tensor>();
  for (const site of record.sites)
    for (const { key, shape: dims, dtype } of Object.values(site.params))
      tensors.set(key, initTensor(normal(0.02), dtype, dims, 1, key));
  // As training records it, so that a fold checks its base.
  const base = await digestWeights(readModel(given.model));
  await writeAdapter(given.out, { ...record, base }, tensors);
  return { sites: record.sites.length };
};

/** A model with its adapter beside the weights. */
export const writeUnfolded: BenchTask = async (input) => {
  const { model, adapter, out } = z
    .object({ model: z.string(), adapter: z.string(), out: z.string() })
    .parse(input);
  const unfolded = readModel(model);
  const file = await readAdapter(adapter);
  attachAdapter(unfolded, file.record, await modelTensors(file));
  await writeModel(unfolded, out);
  return {};
};
