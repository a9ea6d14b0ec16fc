/** The whole road by command lines: insert, emit, train, fold with proof, verify. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { fixturePath, modelFixture } from '../helpers/fixtures.js';
import { cliJson, countingRecords, temporaryFolder, writeLines } from './support.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

interface Road {
  readonly name: string;
  readonly model: string;
  readonly targets: readonly string[];
  readonly loss: string;
  readonly data: () => readonly string[];
  readonly steps: number;
}

const text = (...parts: string[]) => fixturePath('quickstart', ...parts);

const ROADS: readonly Road[] = [
  {
    name: 'BERT classifier, JSON Lines',
    model: modelFixture('bert.dynamo.dynamic').path,
    targets: ['query', 'value', 'dense'],
    loss: 'classification',
    data: () => ['--data', writeLines(folder.path('bert.jsonl'), countingRecords(48, 'class'))],
    steps: 40,
  },
  {
    name: 'GPT-2, JSON Lines',
    model: modelFixture('gpt2.ts.dynamic').path,
    targets: ['c_attn', 'c_fc'],
    loss: 'causal-lm',
    data: () => ['--data', writeLines(folder.path('gpt2.jsonl'), countingRecords(48, 'tokens'))],
    steps: 40,
  },
  {
    name: 'language model, text',
    model: text('model.onnx'),
    targets: ['all-linear'],
    loss: 'causal-lm',
    data: () => ['--data', text('train.txt'), '--tokenizer', text('tokenizer.json'), '--max-length', '32'],
    steps: 12,
  },
];

describe.each(ROADS.map((road, i) => [road.name, road, i] as const))('%s', (_name, road, i) => {
  const at = (file: string) => folder.path(`${i}-${file}`);
  const settings = ['--loss', road.loss, '--lr', '1e-2', '--clip', '1'];

  it('goes from the base model to a merged model that is proved and verified', async () => {
    const inserted = await cliJson(
      ...['insert', road.model, '--targets', ...road.targets],
      ...['--rank', '4', '--alpha', '6', '--seed', '3', '-o', at('adapted.onnx')],
    );
    expect(inserted.status).toBe(0);
    expect(inserted.json.schemaVersion).toBe(1);
    expect(inserted.json.record.sites.length).toBeGreaterThan(0);

    const untouched = await cliJson('verify', road.model, at('adapted.onnx'));
    expect(untouched.json.pass).toBe(true);

    const emitted = await cliJson('emit', at('adapted.onnx'), ...settings, '-o', at('step'));
    expect(emitted.status).toBe(0);
    for (const file of emitted.json.files as string[]) expect(existsSync(file)).toBe(true);

    const data = road.data();
    const trained = await cliJson('train', at('step'), ...data, '--steps', `${road.steps}`, '-o', at('run'));
    expect(trained.status).toBe(0);
    const losses = trained.json.losses as number[];
    expect(losses).toHaveLength(road.steps);
    const quarter = road.steps / 4;
    expect(mean(losses.slice(-quarter))).toBeLessThan(mean(losses.slice(0, quarter)));

    const merged = at('merged.onnx');
    const folded = await cliJson('fold', road.model, '-a', trained.json.adapter, '--verify', '-o', merged);
    expect(folded.status).toBe(0);
    expect(folded.json.verification.pass).toBe(true);
    expect(folded.json.proof.nodes).toBeGreaterThan(0);
    expect(folded.json.tensors.length).toBe(inserted.json.record.sites.length);

    // The graph is the base's, and what it computes is not.
    const changed = await cliJson('verify', road.model, merged, '--structure');
    expect(changed.status).toBe(5);
    expect(changed.json.structure).toBeNull();
  });

  it('trains the same losses without the folder in between, and in micro-batches', async () => {
    const command = ['train', at('adapted.onnx'), ...settings, ...road.data(), '--steps', '4'];
    const direct = await cliJson(...command, '-o', at('direct'));
    const micro = await cliJson(...command, '--batch-size', '8', '--micro-batch', '2', '-o', at('micro'));
    const lines = readFileSync(at('run/log.jsonl'), 'utf8').trim().split('\n');
    const logged = lines.slice(0, 4).map((line) => (JSON.parse(line) as { loss: number }).loss);
    expect(direct.json.losses).toEqual(logged);
    // Sums in another order: float32 rounding, amplified by Adam's division by small second moments.
    for (const [step, loss] of (direct.json.losses as number[]).entries())
      expect(Math.abs(micro.json.losses[step] - loss)).toBeLessThan(1e-4 * loss);
  });
});

it('compares at given shapes and on given inputs', async () => {
  const { path, casesPath } = modelFixture('bert.ts.dynamic');
  const other = modelFixture('bert.dynamo.dynamic').path;
  const shapes = await cliJson(
    'verify',
    path,
    other,
    '--sizes',
    'batch=2,sequence=7',
    '--sizes',
    'batch=5,sequence=3',
  );
  expect(shapes.status).toBe(0);
  expect(
    (shapes.json.cases as { outputs: { dims: number[] }[] }[]).map((c) => c.outputs[0]?.dims[0]),
  ).toEqual([2, 5]);
  const inputs = folder.path('inputs.safetensors');
  await writeCase(casesPath, inputs);
  const given = await cliJson('verify', path, other, '--inputs', inputs);
  expect(given.status).toBe(0);
  expect(given.json.cases).toHaveLength(1);
});

/** The inputs of the first case of a fixture, under the names of the model's inputs. */
async function writeCase(casesPath: string, out: string): Promise<void> {
  const { readSafetensors, writeSafetensors } = await import('../../runtime/safetensors.js');
  const { tensors } = readSafetensors(casesPath);
  const named = [...tensors].flatMap(([name, tensor]) => {
    const found = /^case0\.(input_ids|attention_mask|token_type_ids)$/.exec(name);
    return found === null ? [] : [[found[1] ?? '', tensor] as const];
  });
  await writeSafetensors(out, new Map(named));
}
