/** The quantised models under `fixtures/quantised`, with inputs and what ONNX Runtime's kernels make of them. */
import { readFileSync } from 'node:fs';
import type ort from 'onnxruntime-node';
import { insert } from '../../passes/insert/insert.js';
import { dequantizeSites, quantizedMatrixOf } from '../../passes/quantize/dequantize.js';
import { isRefusal } from '../../passes/quantize/products.js';
import { findSites } from '../../passes/sites/index.js';
import type { LinearSite } from '../../passes/sites/site.js';
import { dequantizer } from '../../runtime/quantize/dequantized.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath, numbersOf, readTensors } from '../helpers/fixtures.js';
import { float32, int64 } from '../targets/driver.js';

export interface QuantisedCase {
  readonly name: string;
  readonly architecture: string;
  readonly task: 'classification' | 'causal-lm';
  readonly ops: readonly string[];
}

export const CASES = JSON.parse(
  readFileSync(fixturePath('quantised', 'cases.json'), 'utf8'),
) as readonly QuantisedCase[];

const tensors = readTensors(fixturePath('quantised', 'cases.safetensors'));

/** Activations stay floats: the model computes what its dequantised weights compute. */
export const weightOnly = ({ ops }: QuantisedCase): boolean =>
  !ops.some((op) => /^(Dynamic)?Quantize|^QLinear|^MatMulInteger/.test(op));

export function modelOf({ name }: Pick<QuantisedCase, 'name'>): Model {
  return readModel(fixturePath('quantised', `${name}.onnx`));
}

export function inputsOf({ architecture }: QuantisedCase): Record<string, ort.Tensor> {
  const found = [...tensors].filter(([key]) => key.startsWith(`${architecture}.`));
  return Object.fromEntries(
    found.map(([key, tensor]) => [
      key.slice(architecture.length + 1),
      int64([...numbersOf(tensor)], tensor.shape),
    ]),
  );
}

export function logitsOf({ name }: QuantisedCase): number[] {
  const tensor = tensors.get(`${name}.logits`);
  if (tensor === undefined) throw new Error(`no logits of ${name}`);
  return [...numbersOf(tensor)];
}

/** A batch with labels. */
export function batchOf(test: QuantisedCase): Record<string, ort.Tensor> {
  const inputs = inputsOf(test);
  const ids = inputs.input_ids as ort.Tensor;
  const labels = test.task === 'classification' ? int64([0, 2, 1]) : ids;
  return { ...inputs, labels };
}

/** Linears whose weight is quantised. */
export function quantisedLinears(model: Model): LinearSite[] {
  return findSites(model).filter(
    (site): site is LinearSite => site.kind === 'linear' && site.weight.storage !== 'dense',
  );
}

/** The model with floats in place of every quantised weight that can be read. */
export function dequantised(model: Model): Model {
  const sites = quantisedLinears(model).filter((site) => !isRefusal(quantizedMatrixOf(site)));
  dequantizeSites(model, sites, dequantizer());
  return model;
}

/** Random LoRA on all linears, as weights of the model. */
export function withLora(model: Model, targets: string[] | string = 'all-linear'): Model {
  const { record } = insert(model, { method: 'lora', targeting: { targets }, config: { rank: 2, alpha: 3 } });
  const params = randomParameters(record, model, { seed: 5 });
  for (const value of model.graph.initializers)
    for (const site of record.sites)
      for (const { name, key } of Object.values(site.params)) {
        const tensor = params.get(key);
        if (value.name === name && tensor !== undefined) value.tensor = tensor;
      }
  return model;
}

/** Largest difference over the largest number of `b`. */
export function relative(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...b.map(Math.abs), Number.MIN_VALUE);
  return Math.max(...b.map((value, i) => Math.abs((a[i] ?? Number.NaN) - value))) / scale;
}

export { float32 };
