/**
 * Twenty optimizer steps of LoRA on exported transformers against torch and peft (`fixtures/generate/peft_reference.py`):
 * losses, gradient norms, first gradients and final parameters, for every export of the architecture.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type ort from 'onnxruntime-node';
import { afterEach, describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitStep, type StepOptions } from '../../passes/targets/step.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import { readModel } from '../../src/onnx/index.js';
import { numbers } from '../helpers/run.js';
import { type Batch, Driver, float32, int64 } from './driver.js';

const FIXTURES = join(import.meta.dirname, '../../fixtures');
const REFERENCE = join(FIXTURES, 'reference');

interface Reference {
  readonly name: string;
  readonly architecture: string;
  readonly task: 'classification' | 'causal-lm';
  readonly config: { readonly rank: number; readonly alpha: number; readonly rslora: boolean };
  readonly targets: readonly string[] | string;
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  readonly optimizer: Readonly<Record<string, unknown>> & { readonly id: string };
  readonly clip: number;
  readonly accumulation: number;
  readonly steps: number;
  readonly keys: readonly string[];
  readonly losses: readonly number[];
  readonly learningRates: readonly number[];
  readonly gradientNorms: readonly number[];
}

/** Float tensors of a reference file by name, as numbers. */
class Recorded {
  readonly #file;
  constructor(name: string) {
    this.#file = readSafetensors(join(REFERENCE, `${name}.safetensors`));
  }
  async numbers(name: string): Promise<{ data: number[]; dims: readonly number[] }> {
    const tensor = this.#file.tensors.get(name);
    if (tensor === undefined) throw new Error(`no tensor ${name}`);
    return { data: Array.from(numbersOf(await loadTensor(tensor)), Number), dims: tensor.dims };
  }
  async batch(index: number, names: readonly string[]): Promise<Batch> {
    const entries = await Promise.all(
      names.map(async (name): Promise<[string, ort.Tensor]> => {
        const { data, dims } = await this.numbers(`batch${index}.${name}`);
        return [name, int64(data, dims)];
      }),
    );
    return Object.fromEntries(entries);
  }
  /** One of peft's matrices, [out, in], as ours, [in, out]. */
  async matrix(name: string): Promise<number[]> {
    const { data, dims } = await this.numbers(name);
    const [rows, columns] = dims as [number, number];
    return Array.from({ length: data.length }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
  }
}

/** peft keeps embedding factors as bare parameters and linear ones as modules with a weight. */
const peftKey = (key: string) => `base_model.model.${key}${key.includes('embedding_') ? '' : '.weight'}`;

function optimizerOptions({ optimizer }: Reference): Pick<StepOptions, 'optimizer' | 'optimizerConfig'> {
  const { id, betas, ...rest } = optimizer;
  const [beta1, beta2] = (betas ?? []) as number[];
  return { optimizer: id, optimizerConfig: betas === undefined ? rest : { ...rest, beta1, beta2 } };
}

const relative = (a: readonly number[], b: readonly number[]) =>
  Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...b);

const drivers: Driver[] = [];
afterEach(async () => {
  for (const driver of drivers.splice(0)) await driver.close();
});

/** Trains an export as the reference says; returns the largest relative errors. */
async function replay(reference: Reference, file: string) {
  const recorded = new Recorded(reference.name);
  const model = readModel(join(FIXTURES, 'models', file));
  const { targets, rankPattern, alphaPattern } = reference;
  insert(model, {
    method: 'lora',
    config: reference.config,
    targeting: {
      targets: typeof targets === 'string' ? targets : [...targets],
      ...(rankPattern === undefined ? {} : { rankPattern }),
      ...(alphaPattern === undefined ? {} : { alphaPattern }),
    },
  });
  const artifacts = emitStep(model, {
    loss: reference.task,
    ...optimizerOptions(reference),
    clip: reference.clip,
    accumulation: reference.accumulation,
    gradients: true,
  });
  const { manifest } = artifacts;
  expect(manifest.params.map(({ key }) => peftKey(key)).sort()).toEqual([...reference.keys].sort());
  const driver = await Driver.open(model, artifacts);
  drivers.push(driver);
  for (const { key, input, shape } of manifest.params)
    driver.carried.set(input, float32(await recorded.matrix(`init.${peftKey(key)}`), shape));

  const errors = { loss: 0, norm: 0, gradient: 0, final: 0 };
  const inputs = manifest.batch.map(({ name }) => name);
  for (let step = 0; step < reference.steps; step++) {
    const micro = await Promise.all(
      Array.from({ length: reference.accumulation }, (_, i) =>
        recorded.batch(step * reference.accumulation + i, inputs),
      ),
    );
    const losses: { loss: number; weight: number }[] = [];
    const outputs = await driver.step(micro, reference.learningRates[step]!, 0, (graph) =>
      losses.push({ loss: numbers(graph.loss)[0]!, weight: numbers(graph.loss_weight)[0]! }),
    );
    const loss =
      losses.reduce((sum, part) => sum + part.loss * part.weight, 0) /
      losses.reduce((sum, part) => sum + part.weight, 0);
    errors.loss = Math.max(errors.loss, Math.abs(loss / reference.losses[step]! - 1));
    errors.norm = Math.max(
      errors.norm,
      Math.abs(numbers(outputs.grad_norm)[0]! / reference.gradientNorms[step]! - 1),
    );
    if (step > 0) continue;
    for (const { key, gradient } of manifest.params)
      if (gradient !== undefined)
        errors.gradient = Math.max(
          errors.gradient,
          relative(numbers(outputs[gradient]), await recorded.matrix(`gradient.${peftKey(key)}`)),
        );
  }
  for (const { key, input } of manifest.params)
    errors.final = Math.max(
      errors.final,
      relative(numbers(driver.carried.get(input)), await recorded.matrix(`final.${peftKey(key)}`)),
    );
  return errors;
}

const cases = existsSync(REFERENCE)
  ? readdirSync(REFERENCE).filter((name) => /-lora.*\.json$/.test(name))
  : [];
const exports = readdirSync(join(FIXTURES, 'models')).filter((name) => name.endsWith('.onnx'));

describe.skipIf(cases.length === 0)('torch and peft', () => {
  for (const name of cases) {
    const reference = JSON.parse(readFileSync(join(REFERENCE, name), 'utf8')) as Reference;
    // Half-precision exports have other weights. Sessions here are made from bytes, which rules out external data.
    const files = exports.filter(
      (file) => file.startsWith(`${reference.architecture}.`) && !/(16|external)\.onnx$/.test(file),
    );
    it.each(files)(`${reference.name} on %s`, async (file) => {
      const errors = await replay(reference, file);
      // The issue asks for 1e-4; torch in float32 itself is off by up to 2e-6 from float64.
      expect(errors.loss).toBeLessThan(1e-5);
      expect(errors.gradient).toBeLessThan(1e-5);
      expect(errors.norm).toBeLessThan(3e-4);
      expect(errors.final).toBeLessThan(1e-4);
    });
  }
});
