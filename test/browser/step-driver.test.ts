/** The driver for pages, run here over onnxruntime-node, which has the same interface. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { Project } from 'ts-morph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { emitStep } from '../../passes/targets/step.js';
import { readAdapter } from '../../runtime/adapter-file.js';
import { writeArtifacts } from '../../runtime/artifacts.js';
import { Collator, InitialValues, StepDriver, type StepFiles } from '../../runtime/browser/index.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../src/index.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { modelFixture, repositoryRoot } from '../helpers/fixtures.js';
import { numbers } from '../helpers/run.js';
import { Driver, int64 } from '../targets/driver.js';

const LENGTH = 6;
const ROWS = 2;
const runtime = ort as unknown as Parameters<typeof StepDriver.open>[0];

let folder: string;
let adapted: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'peft-compile-page-'));
  adapted = readModel(modelFixture('llama.ts.dynamic').path);
  await insert(adapted, {
    method: 'lora',
    targeting: { targets: ['q_proj'] },
    config: { rank: 2, alpha: 3, dropout: 0.1 },
  });
});
afterAll(() => rm(folder, { recursive: true }));

async function files(accumulation: number, dropout = 0): Promise<StepFiles> {
  const out = join(folder, `step-${accumulation}-${dropout}`);
  await writeArtifacts(out, emitted(accumulation, dropout), adapted, { force: true });
  const read = async (name: string) => new Uint8Array(await readFile(join(out, name)));
  const names = accumulation === 1 ? ['step', 'eval'] : ['grad', 'update', 'eval'];
  return {
    manifest: JSON.parse(await readFile(join(out, 'manifest.json'), 'utf8')),
    graphs: Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await read(`${name}.onnx`)])),
    ),
    initial: await read('initial.safetensors'),
  };
}

const emitted = (accumulation: number, dropout = 0) =>
  emitStep(adapted, {
    loss: 'causal-lm',
    dropout,
    clip: 1,
    accumulation,
    schedule: { id: 'linear', learningRate: 0.02, warmupSteps: 1 },
  });

const tokens = (row: number) => Array.from({ length: LENGTH }, (_, i) => 2 + ((11 * i + 5 * row) % 40));

function feedsOf(rows: readonly number[], specs: ConstructorParameters<typeof Collator>[0]) {
  const examples = rows.map((row) => {
    const given = { dims: [LENGTH], values: tokens(row) };
    return { tensors: new Map(Object.entries({ input_ids: given, labels: given })), where: `row ${row}` };
  });
  return new Collator(specs).batch(examples).feeds;
}

describe('the driver for pages', () => {
  it.each([1, 2])('trains as the reference driver does, %i batches a step', async (accumulation) => {
    const given = await files(accumulation);
    const driver = await StepDriver.open(runtime, given, { totalSteps: 4 });
    const reference = await Driver.open(adapted, emitted(accumulation));
    const plain = (rows: readonly number[]) => {
      const ids = int64(rows.flatMap(tokens), [rows.length, LENGTH]);
      return {
        input_ids: ids,
        labels: ids,
        attention_mask: int64(new Array(rows.length * LENGTH).fill(1), [rows.length, LENGTH]),
      };
    };
    for (let step = 0; step < 4; step++) {
      const rows = Array.from({ length: accumulation }, (_, i) =>
        Array.from({ length: ROWS }, (_, j) => ROWS * (accumulation * step + i) + j),
      );
      const found = await driver.step(rows.map((row) => feedsOf(row, given.manifest.batch)));
      const losses: number[] = [];
      const last = await reference.step(
        accumulation === 1 ? plain(rows[0]!) : rows.map(plain),
        found.learningRate,
        step,
        (outputs) => losses.push(numbers(outputs[given.manifest.outputs.loss])[0]!),
      );
      expect(found.step).toBe(step + 1);
      // Equal rows weigh the same.
      expect(found.loss).toBeCloseTo(losses.reduce((a, b) => a + b) / losses.length, 5);
      expect(found.gradNorm).toBe(numbers(last[given.manifest.outputs.gradNorm])[0]);
    }
    expect(
      (await driver.step(Array.from({ length: accumulation }, () => feedsOf([0], given.manifest.batch))))
        .learningRate,
    ).toBe(0);
    const trained = await driver.parameters();
    for (const { key, input } of given.manifest.params)
      expect([...trained.get(key)!]).toEqual(numbers(reference.carried.get(input)));
    await driver.close();
    await reference.close();
  });

  it('writes what it learned as an adapter file, and evaluates with it', async () => {
    const given = await files(1);
    const driver = await StepDriver.open(runtime, given);
    const batch = feedsOf([0, 1], given.manifest.batch);
    const before = await driver.evaluate([batch]);
    for (let i = 0; i < 5; i++) await driver.step([batch]);
    expect(await driver.evaluate([batch])).toBeLessThan(before - 0.01);
    const path = join(folder, 'adapter.safetensors');
    await writeFile(path, await driver.adapterFile());
    const { tensors } = await readAdapter(path);
    const trained = await driver.parameters();
    expect(tensors.size).toBe(trained.size);
    for (const [key, tensor] of tensors)
      expect([...numbersOf(await loadTensor(tensor))]).toEqual([...trained.get(key)!]);
    await driver.close();
  });

  it('trains to the same numbers whether it evaluates in between or not', async () => {
    const given = await files(2, 0.3);
    expect(given.manifest.dropout).toBe(0.3);
    const batch = feedsOf([0, 1], given.manifest.batch);
    const losses = async (evaluates: boolean): Promise<number[]> => {
      const driver = await StepDriver.open(runtime, given);
      const found: number[] = [];
      for (let i = 0; i < 3; i++) {
        if (evaluates) await driver.evaluate([batch]);
        found.push((await driver.step([batch, batch])).loss);
      }
      await driver.close();
      return found;
    };
    expect(await losses(true)).toEqual(await losses(false));
  });

  it('releases the sessions that it opened before one failed', async () => {
    const given = await files(2);
    const released: unknown[] = [];
    const counting = {
      ...runtime,
      InferenceSession: {
        async create(model: Uint8Array, options?: ort.InferenceSession.SessionOptions) {
          const session = await ort.InferenceSession.create(model, options);
          const release = session.release.bind(session);
          session.release = async () => {
            released.push(session);
            await release();
          };
          return session;
        },
      },
    };
    const broken = { ...given, graphs: { ...given.graphs, update: new Uint8Array(8) } };
    await expect(StepDriver.open(counting, broken)).rejects.toThrow();
    expect(released).toHaveLength(1);
    const unfit = { ...given, initial: given.initial.subarray(0, 40) };
    await expect(StepDriver.open(counting, unfit)).rejects.toThrow(
      expect.objectContaining({ code: 'E_INVALID_DATA' }),
    );
    expect(released).toHaveLength(4);
  });

  it('says what is wrong', async () => {
    const given = await files(1);
    const refused = (code: string) => expect.objectContaining({ code });
    await expect(StepDriver.open(runtime, { ...given, graphs: {} })).rejects.toThrow(refused('E_USAGE'));
    const other = { ...given.manifest, schemaVersion: 2 as 1 };
    await expect(StepDriver.open(runtime, { ...given, manifest: other })).rejects.toThrow(refused('E_USAGE'));
    for (const bytes of [
      new Uint8Array(4),
      new Uint8Array([8, 0, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode('{"a":null}')]),
      new Uint8Array([10, 0, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode('{"a":null}')]),
      given.initial.subarray(0, 40),
      given.initial.subarray(0, given.initial.length - 4),
    ])
      expect(() => new InitialValues(bytes)).toThrow(refused('E_INVALID_DATA'));
    const driver = await StepDriver.open(runtime, given);
    await expect(driver.step([])).rejects.toThrow(refused('E_USAGE'));
    await expect(driver.step([{}])).rejects.toThrow(refused('E_INVALID_DATA'));
    await driver.close();
  });

  it('imports nothing that a page lacks', () => {
    const project = new Project({ tsConfigFilePath: join(repositoryRoot, 'tsconfig.build.json') });
    const seen = new Set<string>();
    const open = [project.getSourceFileOrThrow(join(repositoryRoot, 'runtime/browser/index.ts'))];
    const packages: string[] = [];
    for (let file = open.pop(); file !== undefined; file = open.pop()) {
      if (seen.has(file.getFilePath())) continue;
      seen.add(file.getFilePath());
      for (const declaration of [...file.getImportDeclarations(), ...file.getExportDeclarations()]) {
        const named =
          'getNamedImports' in declaration ? declaration.getNamedImports() : declaration.getNamedExports();
        if (declaration.isTypeOnly() || (named.length > 0 && named.every((name) => name.isTypeOnly())))
          continue;
        const target = declaration.getModuleSpecifierSourceFile();
        if (target === undefined || target.isInNodeModules())
          packages.push(declaration.getModuleSpecifierValue() ?? '');
        else open.push(target);
      }
    }
    expect(seen.size).toBeGreaterThan(5);
    expect(packages.filter((name) => name !== '')).toEqual([]);
  });
});
