/** Agreement with torch and peft, and the error of folding, over the committed fixtures. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { insert } from '../../../passes/insert/insert.js';
import { emitStep, type StepArtifacts } from '../../../passes/targets/step.js';
import { initTensor, normal } from '../../../src/initializer.js';
import type { Model } from '../../../src/model.js';
import { readModel } from '../../../src/onnx/index.js';
import type { Tensor } from '../../../src/tensor.js';
import { writeAdapter } from '../../adapter-file.js';
import { artifactsInMemory } from '../../artifacts.js';
import { fold } from '../../fold/fold.js';
import {
  filledTensor,
  type HostTensor,
  loadTensor,
  numbersOf,
  scalarTensor,
  tensorOfNumbers,
} from '../../host-tensor.js';
import { loadSession } from '../../model-session.js';
import { readSafetensors } from '../../safetensors.js';
import { SessionHost, type Tensors } from '../../session.js';
import { Stepper } from '../../train/stepper.js';
import { repositoryFile } from '../root.js';
import type { BenchTask } from '../task.js';

const referenceSchema = z.object({
  name: z.string(),
  architecture: z.string(),
  task: z.string(),
  config: z.record(z.string(), z.unknown()),
  targets: z.union([z.string(), z.array(z.string())]),
  rankPattern: z.record(z.string(), z.number()).default({}),
  alphaPattern: z.record(z.string(), z.number()).default({}),
  optimizer: z.looseObject({ id: z.string(), betas: z.tuple([z.number(), z.number()]).optional() }),
  clip: z.number(),
  accumulation: z.int(),
  steps: z.int(),
  losses: z.array(z.number()),
  losses64: z.array(z.number()),
  learningRates: z.array(z.number()),
  gradientNorms: z.array(z.number()),
  gradientError: z.number(),
  lossError: z.number(),
});
type Reference = z.infer<typeof referenceSchema>;

const fixtureSchema = z.object({ name: z.string(), architecture: z.string(), dtype: z.string() });

function fixtures(): z.infer<typeof fixtureSchema>[] {
  const folder = repositoryFile('fixtures', 'models');
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => fixtureSchema.parse(JSON.parse(readFileSync(join(folder, file), 'utf8'))));
}

const fixtureModel = (name: string): Model => readModel(repositoryFile('fixtures', 'models', `${name}.onnx`));

/** Tensors of a reference run. */
class Recorded {
  readonly #tensors;
  constructor(name: string) {
    this.#tensors = readSafetensors(repositoryFile('fixtures', 'reference', `${name}.safetensors`)).tensors;
  }
  async load(name: string): Promise<HostTensor> {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new Error(`no tensor ${name}`);
    return loadTensor(tensor);
  }
  /** A factor of peft, stored [out, in], as ours is, [in, out]. */
  async factor(prefix: string, key: string): Promise<HostTensor> {
    // peft keeps embedding factors as bare parameters and linear ones as modules with a weight.
    const suffix = key.includes('embedding_') ? '' : '.weight';
    const tensor = await this.load(`${prefix}.base_model.model.${key}${suffix}`);
    const [rows = 0, columns = 0] = tensor.dims;
    const numbers = numbersOf(tensor);
    const turned = Array.from(numbers, (_, i) => numbers[(i % rows) * columns + Math.floor(i / rows)] ?? 0);
    return tensorOfNumbers(tensor.dtype, [columns, rows], turned);
  }
}

interface Agreement {
  readonly reference: string;
  readonly model: string;
  /** Largest relative difference of a loss over the steps, to torch in float32 and in float64. */
  readonly loss: number;
  readonly loss64: number;
  readonly norm: number;
  /** Largest relative norm of a difference over the tensors; null where steps accumulate. */
  readonly gradient: number | null;
  readonly gradient64: number | null;
  readonly final: number;
  /** What float32 costs torch itself. */
  readonly torchLoss: number;
  readonly torchGradient: number;
}

/** Replays every recorded run of torch and peft on every float32 export of its architecture: `rows`. */
export const agreement: BenchTask = async (input) => {
  const { only } = z.object({ only: z.string().default('') }).parse(input);
  const folder = repositoryFile('fixtures', 'reference');
  const rows: Agreement[] = [];
  for (const file of readdirSync(folder)
    .filter((name) => /-lora.*\.json$/.test(name))
    .sort()) {
    const reference = referenceSchema.parse(JSON.parse(readFileSync(join(folder, file), 'utf8')));
    for (const { name, architecture, dtype } of fixtures())
      if (architecture === reference.architecture && dtype === 'float32' && name.startsWith(only))
        rows.push(await replay(reference, name));
  }
  return { rows };
};

async function replay(reference: Reference, name: string): Promise<Agreement> {
  const recorded = new Recorded(reference.name);
  const model = fixtureModel(name);
  const { targets, rankPattern, alphaPattern, accumulation, optimizer } = reference;
  insert(model, {
    method: 'lora',
    config: reference.config,
    targeting: { targets, rankPattern, alphaPattern },
  });
  const { id, betas, ...config } = optimizer;
  const emitted = emitStep(model, {
    loss: reference.task,
    optimizer: id,
    optimizerConfig: betas === undefined ? config : { ...config, beta1: betas[0], beta2: betas[1] },
    clip: reference.clip,
    accumulation,
    gradients: true,
  });
  const { manifest } = emitted;
  const params = new Map<string, HostTensor>();
  for (const { key } of manifest.params) params.set(key, await recorded.factor('init', key));
  const batch = async (index: number): Promise<Tensors> =>
    Object.fromEntries(
      await Promise.all(
        manifest.batch.map(async (item) => [item.name, await recorded.load(`batch${index}.${item.name}`)]),
      ),
    );

  const first = accumulation === 1 ? await firstGradients(emitted, params, await batch(0)) : undefined;
  const errors = { loss: 0, loss64: 0, norm: 0, gradient: 0, gradient64: 0, final: 0 };
  const worst = (what: keyof typeof errors, error: number) => {
    errors[what] = Math.max(errors[what], error);
  };
  for (const [key, gradient] of first ?? []) {
    worst('gradient', distance(gradient, await recorded.factor('gradient', key)));
    worst('gradient64', distance(gradient, await recorded.factor('gradient64', key)));
  }
  const stepper = new Stepper(await artifactsInMemory(emitted, model), { threads: 1 });
  await stepper.load(params);
  for (let step = 0; step < reference.steps; step++) {
    const batches: Tensors[] = [];
    for (let i = 0; i < accumulation; i++) batches.push(await batch(step * accumulation + i));
    const lr = reference.learningRates[step] ?? 0;
    const result = await stepper.step(batches, { lr, step: step + 1, seeds: batches.map(() => 0) });
    worst('loss', Math.abs(result.loss / (reference.losses[step] ?? Number.NaN) - 1));
    worst('loss64', Math.abs(result.loss / (reference.losses64[step] ?? Number.NaN) - 1));
    worst('norm', Math.abs(result.gradNorm / (reference.gradientNorms[step] ?? Number.NaN) - 1));
  }
  for (const [key, value] of await stepper.params())
    worst('final', distance(value, await recorded.factor('final', key)));
  await stepper.close();
  return {
    reference: reference.name,
    model: name,
    ...errors,
    ...(first === undefined ? { gradient: null, gradient64: null } : {}),
    torchLoss: reference.lossError,
    torchGradient: reference.gradientError,
  };
}

/** Unclipped gradients of the first step by parameter. */
async function firstGradients(
  { manifest, step }: StepArtifacts,
  params: ReadonlyMap<string, HostTensor>,
  batch: Tensors,
): Promise<Map<string, HostTensor>> {
  if (step === undefined) throw new Error('no step graph');
  const host = new SessionHost();
  try {
    const { session } = await loadSession(host, step, { threads: 1 });
    const feeds: Record<string, HostTensor> = { ...batch };
    for (const { input, key } of manifest.params) feeds[input] = params.get(key) as HostTensor;
    for (const { input, dtype, shape, init } of manifest.optimizer.state)
      feeds[input] = filledTensor(dtype, shape, init);
    for (const { name, dtype } of manifest.scalars) feeds[name] = scalarTensor(dtype, 1);
    const known = new Set(manifest.graphs.step?.inputs);
    const results = await session.run(
      Object.fromEntries(Object.entries(feeds).filter(([name]) => known.has(name))),
    );
    const gradients = new Map<string, HostTensor>();
    for (const { key, gradient } of manifest.params)
      if (gradient !== undefined) gradients.set(key, results[gradient] as HostTensor);
    return gradients;
  } finally {
    await host.close();
  }
}

/** ‖a − b‖ / ‖b‖. */
function distance(a: HostTensor, b: HostTensor): number {
  const [x, y] = [numbersOf(a), numbersOf(b)];
  let difference = 0;
  let norm = 0;
  for (const [i, value] of y.entries()) {
    difference += (value - (x[i] ?? Number.NaN)) ** 2;
    norm += value ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** Folds a random adapter with alpha ≠ rank into every export and compares with the unfolded graph: `rows`. */
export const foldErrors: BenchTask = async (input) => {
  const { only } = z.object({ only: z.string().default('') }).parse(input);
  const folder = mkdtempSync(join(tmpdir(), 'peft-compile-bench-'));
  const rows: unknown[] = [];
  try {
    for (const { name, dtype } of fixtures()) {
      if (!name.startsWith(only)) continue;
      const model = fixtureModel(name);
      const { record } = insert(model, {
        method: 'lora',
        config: { rank: 3, alpha: 5 },
        targeting: { targets: 'all-linear' },
      });
      const tensors = new Map<string, Tensor>();
      for (const site of record.sites)
        for (const param of Object.values(site.params))
          tensors.set(param.key, initTensor(normal(0.3), param.dtype, param.shape, 1, param.key));
      const adapter = join(folder, `${name}.safetensors`);
      await writeAdapter(adapter, record, tensors);
      const report = await fold({
        model: repositoryFile('fixtures', 'models', `${name}.onnx`),
        adapter,
        out: join(folder, name, 'merged.onnx'),
        verify: { session: { threads: 1 } },
      });
      rows.push({
        model: name,
        dtype,
        tensors: report.tensors.length,
        relative: report.verification?.worst.relative,
        tolerance: report.verification?.tolerance,
        proved: report.proof?.holds === true ? 'yes' : 'no',
      });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { rows };
};
