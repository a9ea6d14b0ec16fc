/** QALoRA as it is trained: beside weights that stay integers, where it is a LoRA with one row of A for many inputs. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { planFold } from '../../passes/fold/plan.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { modelTensors } from '../../runtime/adapter-file.js';
import { readPeft } from '../../runtime/peft/read.js';
import { writeSafetensors } from '../../runtime/safetensors.js';
import { readModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { peftFolder, relativeError } from './folders.js';

const [IN, OUT, RANK, GROUP, ALPHA] = [16, 16, 4, 8, 6];
const MODULE = 'base_model.model.model.layers.0.self_attn.q_proj';
const model = () => readModel(fixturePath('quantised', 'llama-nbits4.onnx'));
const wave = (i: number) => 0.3 * Math.sin(1.7 * i + 0.4);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-quantised-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function folderOf(name: string, fields: object, A: readonly number[]): Promise<string> {
  const path = join(folder, name);
  cpSync(peftFolder('llama-qalora'), path, { recursive: true });
  const config = JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8')) as object;
  const own = { ...config, r: RANK, lora_alpha: ALPHA, target_modules: ['q_proj'], ...fields };
  writeFileSync(join(path, 'adapter_config.json'), JSON.stringify(own));
  const tensor = (dims: readonly number[], values: ArrayLike<number>) =>
    tensorOfBytes('float32', dims, new Uint8Array(Float32Array.from(values).buffer));
  const B = Array.from({ length: OUT * RANK }, (_, i) => wave(i + 50));
  const tensors = new Map([
    [`${MODULE}.lora_A.weight`, tensor([RANK, A.length / RANK], A)],
    [`${MODULE}.lora_B.weight`, tensor([OUT, RANK], B)],
  ]);
  await writeSafetensors(join(path, 'adapter_model.safetensors'), tensors, { force: true });
  return path;
}

async function logitsOf(path: string): Promise<number[]> {
  const base = model();
  const adapter = await readPeft(path, { base });
  expect(planFold(base, adapter.record).impossible.map(({ reason }) => reason)).toEqual([
    'the weight is quantised',
  ]);
  attachAdapter(base, adapter.record, await modelTensors(adapter));
  const ids = BigInt64Array.from({ length: 6 }, (_, i) => BigInt(2 + i));
  const feeds = Object.fromEntries(
    base.graph.inputs.map(({ name = '' }) => [
      name,
      new ort.Tensor('int64', name === 'input_ids' ? ids : new BigInt64Array(6).fill(1n), [1, 6]),
    ]),
  );
  return numbers(Object.values(await runModel(base, feeds))[0]);
}

it('a LoRA over means of groups is a LoRA that repeats its rows', async () => {
  const groups = IN / GROUP;
  const A = Array.from({ length: RANK * groups }, (_, i) => wave(i));
  const repeated = Array.from({ length: RANK * IN }, (_, i) => {
    const [row, input] = [Math.floor(i / IN), i % IN];
    return ((A[row * groups + Math.floor(input / GROUP)] as number) * groups) / GROUP;
  });
  const pooled = await logitsOf(await folderOf('pooled', { qalora_group_size: GROUP }, A));
  const plain = await logitsOf(await folderOf('plain', { use_qalora: false }, repeated));
  expect(relativeError(pooled, plain)).toBeLessThanOrEqual(1e-6);
});
