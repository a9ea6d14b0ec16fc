/** The tasks that run in processes of their own. Inputs are plain JSON, written by the suites. */

import { copyFile } from 'node:fs/promises';
import { z } from 'zod';
import { insert } from '../../passes/insert.js';
import { emitStep } from '../../passes/targets/step.js';
import { loadArtifacts } from '../artifacts.js';
import { fold } from '../fold/fold.js';
import { tensorOfNumbers } from '../host-tensor.js';
import { createSession, type SessionOptions, type Tensors } from '../session.js';
import { Stepper } from '../train/stepper.js';
import { bertClassifier } from './models/bert.js';
import { type BenchTask, medianMs } from './task.js';

const sessionOptions = z.record(z.string(), z.unknown()) as unknown as z.ZodType<SessionOptions>;
const sizes = z.object({
  batch: z.int(),
  sequence: z.int(),
  vocab: z.int(),
  runs: z.int(),
  options: sessionOptions.default({}),
});

function batchOf({ batch, sequence, vocab }: z.infer<typeof sizes>): Tensors {
  const ids = Array.from({ length: batch * sequence }, (_, i) => (i * 7919) % vocab);
  return {
    input_ids: tensorOfNumbers('int64', [batch, sequence], ids),
    attention_mask: tensorOfNumbers(
      'int64',
      [batch, sequence],
      ids.map(() => 1),
    ),
  };
}

/** Forward pass of a model, `forwardMs`. */
const forward: BenchTask = async (input) => {
  const { model, ...size } = sizes.extend({ model: z.string() }).parse(input);
  const session = await createSession(model, size.options);
  const feeds = batchOf(size);
  const forwardMs = await medianMs(() => session.run(feeds), size.runs, 2);
  await session.release();
  return { forwardMs };
};

/** Optimizer steps over emitted artifacts, `stepMs`. */
const step: BenchTask = async (input) => {
  const { folder, labels, ...size } = sizes.extend({ folder: z.string(), labels: z.int() }).parse(input);
  const artifacts = await loadArtifacts(folder);
  const stepper = new Stepper(artifacts, size.options);
  await stepper.load(artifacts.initial);
  const label = artifacts.manifest.batch.find(({ role }) => role === 'label')?.name ?? 'labels';
  const batch = batchOf(size);
  let number = 0;
  let loss = 0;
  const run = async () => {
    number++;
    const classes = Array.from({ length: size.batch }, (_, i) => i % labels);
    // The stepper takes the buffers over, so each step gets its own.
    const feeds = Object.fromEntries(
      Object.entries({ ...batch, [label]: tensorOfNumbers('int64', [size.batch], classes) }).map(
        ([name, t]) => [name, { ...t, data: t.data.slice() }],
      ),
    );
    loss = (await stepper.step([feeds], { lr: 1e-4, step: number, seeds: [number] })).loss;
  };
  const stepMs = await medianMs(run, size.runs, 2);
  await stepper.close();
  return { stepMs, loss };
};

/** Fold of an adapter into a model. */
const foldTask: BenchTask = async (input) => {
  const { model, adapter, out } = z
    .object({ model: z.string(), adapter: z.string(), out: z.string() })
    .parse(input);
  const start = performance.now();
  await fold({ model, adapter, out, force: true });
  return { foldMs: performance.now() - start };
};

/** Plain copy of a file, `copyMs`. */
const copy: BenchTask = async (input) => {
  const { from, to } = z.object({ from: z.string(), to: z.string() }).parse(input);
  const start = performance.now();
  await copyFile(from, to);
  return { copyMs: performance.now() - start };
};

/** Insert and backward on a graph of about `nodes` nodes. */
const compile: BenchTask = async (input) => {
  const { layers } = z.object({ layers: z.int() }).parse(input);
  const shape = { layers, hidden: 16, heads: 4, intermediate: 32, vocab: 64, positions: 32, labels: 2 };
  const model = bertClassifier(shape);
  const nodes = model.graph.nodeCount;
  const start = performance.now();
  insert(model, { method: 'lora', targeting: { targets: ['query', 'value'] } });
  const insertMs = performance.now() - start;
  const artifacts = emitStep(model, { loss: 'classification', clip: 1 });
  const totalMs = performance.now() - start;
  return {
    nodes,
    insertMs,
    emitMs: totalMs - insertMs,
    totalMs,
    stepNodes: artifacts.step?.graph.nodeCount ?? 0,
  };
};

export const TASKS: Readonly<Record<string, BenchTask>> = { forward, step, fold: foldTask, copy, compile };
