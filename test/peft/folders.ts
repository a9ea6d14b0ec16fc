/** Folders that peft saved (`fixtures/peft`), and what its merged models give. */
import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';
import type { Model } from '../../src/model.js';
import {
  type Architecture,
  fixturePath,
  type ModelFixture,
  modelFixtures,
  numbersOf,
  readTensors,
} from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';

export interface PeftCase {
  /** Folder below `fixtures/peft`. */
  readonly name: string;
  readonly architecture: Architecture;
  readonly type: string;
  readonly case: string;
  readonly folds: boolean;
  readonly mergeError: number;
}

export function peftCases(keep: (one: PeftCase) => boolean = () => true): PeftCase[] {
  const { cases } = JSON.parse(readFileSync(fixturePath('peft', 'cases.json'), 'utf8')) as {
    cases: PeftCase[];
  };
  return cases.filter(keep);
}

export function peftFolder(name: string): string {
  return fixturePath('peft', name);
}

/** Logits of the first row of case 0, merged by peft; or before merging, where that is something else. */
export function expectedLogits(
  { architecture, case: name }: PeftCase,
  state: 'merged' | 'adapted' = 'merged',
): number[] {
  const tensors = readTensors(fixturePath('peft', `${architecture}.safetensors`));
  const tensor = (state === 'adapted' ? tensors.get(`${name}.adapted`) : undefined) ?? tensors.get(name);
  if (tensor === undefined) throw new Error(`no logits of ${name}`);
  return Array.from(numbersOf(tensor));
}

/** Exports in float32 whose files hold their weights. */
export function plainExports(architecture: Architecture): ModelFixture[] {
  return modelFixtures(
    (one) => one.architecture === architecture && one.dtype === 'float32' && !one.externalData,
  );
}

/** Cases that fold into every export: methods at every kind of site. The others fold into one of each exporter. */
const EVERYWHERE = ['lora', 'lora-embedding', 'lora-bias', 'dora', 'ia3', 'ln-tuning', 'tokens'];

/** Exports that a folder is folded into, against what peft merges. */
export function foldExports(one: PeftCase): ModelFixture[] {
  return plainExports(one.architecture).filter(
    ({ variant }) => variant === 'dynamic' || EVERYWHERE.includes(one.case),
  );
}

/** Logits of the first row of case 0. */
export async function firstLogits(model: Model, fixture: ModelFixture): Promise<number[]> {
  const tensors = readTensors(fixture.casesPath);
  const feeds = Object.fromEntries(
    fixture.inputs.map(({ name }) => {
      const tensor = tensors.get(`case0.${name}`)!;
      const data = new BigInt64Array(tensor.bytes.buffer as ArrayBuffer);
      return [name, new ort.Tensor('int64', data, [...tensor.shape])];
    }),
  );
  const { logits } = await runModel(model, feeds);
  const all = numbers(logits);
  return all.slice(0, all.length / Number(logits!.dims[0]));
}

/** Largest difference over the largest expected value. */
export function relativeError(ours: readonly number[], expected: readonly number[]): number {
  if (ours.length !== expected.length) throw new Error(`${ours.length} logits instead of ${expected.length}`);
  const scale = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - ours[i]!))) / scale;
}
