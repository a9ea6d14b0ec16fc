/** The examples run, and do what they say. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createSession,
  fold,
  load,
  numbersOf,
  PeftCompileError,
  printModel,
  tensorOfNumbers,
} from 'peft-compile';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';
import * as ownMethod from '../examples/own-method.js';
import * as ownPass from '../examples/own-pass.js';
import * as pipeline from '../examples/pipeline.js';
import { encodeModel } from '../src/onnx/index.js';
import { modelFixture, repositoryRoot } from './helpers/fixtures.js';

const folder = mkdtempSync(join(tmpdir(), 'examples-'));
afterAll(() => rmSync(folder, { recursive: true }));

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe('examples/pipeline.ts', () => {
  it('trains LoRA on an exported BERT and folds it', async () => {
    const result = await pipeline.main(join(folder, 'pipeline'));
    expect(result.queries).toEqual([
      'bert.encoder.layer.0.attention.self.query',
      'bert.encoder.layer.1.attention.self.query',
    ]);
    expect(result.untrainable).toEqual([]);
    expect(result.share).toBeGreaterThan(0);
    expect(result.share).toBeLessThan(0.5);
    // A and B of every adapted module; two layers with query, value and three dense ones each, and the pooler.
    expect(result.adapterInputs).toBe(2 * (2 * 5 + 1));
    expect(mean(result.losses.slice(-3))).toBeLessThan(0.5 * mean(result.losses.slice(0, 3)));
    expect(result.accuracy).toBe(1);
    expect(result.proof?.holds).toBe(true);
    expect(result.foldError).toBeLessThan(1e-5);
    expect(result.changed).toBeGreaterThan(1e-2);
    const structure = (path: string) => printModel(load(path), { structureOnly: true });
    expect(structure(result.merged)).toBe(structure(modelFixture('bert.ts.dynamic').path));
    // The record names the method; others at hand are not asked.
    const model = modelFixture('bert.ts.dynamic').path;
    const { adapter } = result;
    const planned = await fold({ model, adapter, methods: [ownMethod.columnScale] });
    expect(planned.tensors).toHaveLength(2 * 5 + 1);
  });
});

describe('examples/own-method.ts', () => {
  it('trains and folds a method that the package does not know', async () => {
    const { record, losses, report } = await ownMethod.main(join(folder, 'own-method'));
    expect(record.entries[0]?.method).toBe('column-scale');
    expect(record.sites.map(({ params }) => Object.keys(params))).toEqual(record.sites.map(() => ['d']));
    expect(losses.at(-1)).toBeLessThan(0.9 * losses[0]!);
    expect(report.tensors).toHaveLength(record.sites.length);
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.worst.relative).toBeLessThan(1e-5);
  });

  it('serves the command line as a config module', () => {
    const base = modelFixture('gpt2.ts.dynamic').path;
    const config = configModule('own-method.ts');
    const adapted = join(folder, 'adapted.onnx');
    const setting = ['--method', 'column-scale', '--config', config];
    const inserted = cli(
      'insert',
      base,
      ...setting,
      '--set',
      'gain=3',
      '-t',
      'c_fc',
      '-o',
      adapted,
      '--json',
    );
    expect(inserted.stderr).toBe('');
    expect(JSON.parse(inserted.stdout)).toMatchObject({
      record: { entries: [{ method: 'column-scale', config: { gain: 3 } }] },
    });

    const adapter = join(folder, 'own-method/adapter.safetensors');
    const folded = cli(
      'fold',
      base,
      '-a',
      adapter,
      '--config',
      config,
      '-o',
      join(folder, 'cli.onnx'),
      '--json',
    );
    expect(folded.stderr).toBe('');
    expect(JSON.parse(folded.stdout)).toMatchObject({ proof: { holds: true } });

    const unknown = cli('insert', base, '--method', 'column-scale', '-o', join(folder, 'x.onnx'));
    expect(unknown.status).toBe(4);
    expect(unknown.stderr).toContain("no method or preset 'column-scale'");
  });
});

describe('examples/own-pass.ts', () => {
  it('rewrites a model and trains through its operator', async () => {
    const { log, without, withRule, artifacts, text } = await ownPass.main();
    expect(log).toHaveLength(1);
    expect(log[0]).toMatchObject({ pass: 'soft-threshold', added: 1, removed: 0 });
    expect([without, withRule]).toEqual([false, true]);
    const { step } = artifacts.graphs;
    if (step === undefined || typeof step === 'string' || step instanceof Uint8Array)
      throw new Error('no model');
    expect(printModel(step)).toContain('Shrink');
    expect(text).toContain('dw');
  });

  it('has a rule that agrees with finite differences', async () => {
    const session = await createSession(encodeModel(ownPass.differentiated()));
    const x = [0.5, -1.5, 2, 0.01];
    const at = (w: readonly number[]) =>
      session.run({ x: tensorOfNumbers('float32', [4], x), w: tensorOfNumbers('float32', [4], w) });
    const w = [0.7, 0.3, -0.6, 0.4];
    const gradient = [...numbersOf((await at(w)).dw!)];
    // The function is linear around w, so a central difference is exact up to the rounding of sums near 2.
    const h = 1 / 64;
    for (const [i, value] of w.entries()) {
      const moved = (by: number) => at(w.map((v, k) => (k === i ? value + by : v)));
      const difference = numbersOf((await moved(h)).loss!)[0]! - numbersOf((await moved(-h)).loss!)[0]!;
      expect(gradient[i]).toBeCloseTo(difference / (2 * h), 4);
    }
    expect(gradient[3]).toBe(0);
    await session.release();
  });

  it('serves the command line as a config module', () => {
    const base = modelFixture('bert.dynamo.dynamic').path;
    const config = configModule('own-pass.ts');
    const out = join(folder, 'passed.onnx');
    const { status, stdout, stderr } = cli('run', base, '--config', config, '-o', out, '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ complete: true, log: [{ pass: 'soft-threshold', added: 1 }] });
    expect(printModel(load(out))).toContain('Shrink');

    const wrong = cli('run', base, '--config', config, '-o', out, '--pass', 'soft-treshold');
    expect(wrong.status).toBe(4);
    expect(wrong.stderr).toContain("'soft-threshold'");
    expect(cli('run', base, '--config', config, '-o', out).status).toBe(6);
  });

  it('needs the rule', async () => {
    const { emit, insert, runPasses } = await import('peft-compile');
    const model = load(modelFixture('bert.dynamo.dynamic').path);
    runPasses(model, [ownPass.softThreshold]);
    await insert(model, { method: 'lora', targeting: { targets: ['query'] } });
    const error = await emit(model, { target: 'step', loss: 'classification' }).catch((cause) => cause);
    expect(error).toBeInstanceOf(PeftCompileError);
    expect(error).toMatchObject({ code: 'E_NO_GRADIENT' });
    expect(String(error)).toContain('Shrink');
  });
});

/** Runs the built command. */
function cli(...args: string[]) {
  const program = join(repositoryRoot, 'dist/src/cli/main.js');
  expect(existsSync(program), 'run `npm run build` first').toBe(true);
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** An example as a config module: JavaScript, inside the repository, so that the package's name resolves. */
function configModule(file: string): string {
  const scratch = join(repositoryRoot, 'dist/examples');
  mkdirSync(scratch, { recursive: true });
  const path = join(scratch, file.replace(/\.ts$/, '.js'));
  writeFileSync(path, transpiled(file));
  return path;
}

/** An example as JavaScript. */
function transpiled(file: string): string {
  const source = readFileSync(join(repositoryRoot, 'examples', file), 'utf8');
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
  });
  return outputText;
}
