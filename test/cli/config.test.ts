/** Config files: compositions, training options and code of one's own, found or given, checked with the place named. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { configJsonSchema } from '../../src/cli/config-schema.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, repositoryRoot } from '../helpers/fixtures.js';
import { cli, cliJson, countingRecords, temporaryFolder, writeLines } from './support.js';

const folder = temporaryFolder();
const home = process.cwd();
afterEach(() => process.chdir(home));
afterAll(() => folder.remove());

const model = fixturePath('models', 'bert.ts.dynamic.onnx');

let count = 0;
/** A folder of its own for a config file. */
function project(name: string, text: string): { readonly path: string; at(file: string): string } {
  const own = folder.path(`project-${count++}`);
  mkdirSync(own);
  writeFileSync(join(own, name), text);
  return { path: join(own, name), at: (file) => join(own, file) };
}

const composition = {
  $schema: './config.schema.json',
  seed: 7,
  adapters: [
    {
      method: 'lora',
      targets: ['query', 'value'],
      rankPattern: { 'layer.0.attention.self.query': 2 },
      config: { rank: 3, alpha: 5 },
    },
    { method: 'lora', targets: ['intermediate.dense'], layers: [1], config: { rank: 1 } },
  ],
};

const FORMATS: readonly (readonly [string, string])[] = [
  ['peft-compile.config.json', JSON.stringify(composition)],
  ['peft-compile.config.yaml', stringify(composition)],
  ['peft-compile.config.yml', stringify(composition)],
  ['peft-compile.config.mjs', `export default ${JSON.stringify(composition)};`],
];

describe.each(FORMATS)('%s', (name, text) => {
  it('says what is inserted, found in the working directory or given', async () => {
    const { path, at } = project(name, text);
    process.chdir(join(path, '..'));
    expect((await cli('insert', model, '-o', at('found.onnx'))).status).toBe(0);
    const record = readAdapterRecord(readModel(at('found.onnx')));
    expect(record.seed).toBe(7);
    expect(record.entries.map(({ config }) => config.rank)).toEqual([3, 1]);
    expect(record.sites.map(({ entry, path, config }) => [entry, path, config.rank])).toEqual([
      [0, 'bert.encoder.layer.0.attention.self.query', 2],
      [0, 'bert.encoder.layer.0.attention.self.value', 3],
      [0, 'bert.encoder.layer.1.attention.self.query', 3],
      [0, 'bert.encoder.layer.1.attention.self.value', 3],
      [1, 'bert.encoder.layer.1.intermediate.dense', 1],
    ]);
    process.chdir(home);
    const given = await cliJson('insert', model, '--config', path, '-o', at('given.onnx'));
    expect(given.json.record).toEqual(record);
  });
});

describe('the command line wins', () => {
  it('over settings, targets, seed and methods of the file', async () => {
    const { path, at } = project('c.json', JSON.stringify(composition));
    const { json } = await cliJson(
      ...['insert', model, '--config', path, '--rank', '6', '--targets', 'key', '--seed', '1'],
      ...['--layers', '0', '-o', at('a.onnx')],
    );
    expect(json.status).toBeUndefined();
    expect(json.error.message).toContain('rank pattern');
    const other = await cliJson(
      ...['insert', model, '--config', path, '-m', 'lora', '-t', 'key', '--seed', '1', '-o', at('b.onnx')],
    );
    expect(other.json.record.seed).toBe(1);
    expect(other.json.record.entries).toHaveLength(1);
    expect(other.json.record.entries[0].config.rank).toBe(8);
  });

  it('and --no-config reads none', async () => {
    const { path, at } = project('peft-compile.config.json', '{ broken');
    process.chdir(join(path, '..'));
    expect((await cli('insert', model, '-o', at('a.onnx'))).status).toBe(2);
    expect((await cli('insert', model, '--no-config', '-o', at('a.onnx'))).status).toBe(0);
  });

  it('over training options, which are otherwise those of the file', async () => {
    const { path, at } = project(
      'c.yaml',
      stringify({
        adapters: [{ method: 'lora', targets: ['query'] }],
        seed: 5,
        train: {
          loss: 'classification',
          learningRate: 0.01,
          schedule: 'linear',
          steps: 3,
          batchSize: 4,
          microBatch: 2,
          clip: 1,
          optimizer: 'sgd',
          optimizerConfig: { momentum: 0.5 },
        },
      }),
    );
    expect((await cli('insert', model, '--config', path, '-o', at('a.onnx'))).status).toBe(0);
    const data = ['--data', writeLines(at('data.jsonl'), countingRecords(16, 'class'))];
    const from = await cliJson('train', at('a.onnx'), ...data, '--config', path, '-o', at('file'));
    expect(from.status).toBe(0);
    expect(from.json.losses).toHaveLength(3);
    const flags = [
      ...['--loss', 'classification', '--lr', '0.01', '--schedule', 'linear', '--batch-size', '4'],
      ...['--micro-batch', '2', '--clip', '1', '--optimizer', 'sgd', '--optimizer-set', 'momentum=0.5'],
      ...['--seed', '5'],
    ];
    const spelt = await cliJson('train', at('a.onnx'), ...data, ...flags, '--steps', '3', '-o', at('flags'));
    expect(spelt.json.losses).toEqual(from.json.losses);
    const fewer = await cliJson(
      ...['train', at('a.onnx'), ...data, '--config', path, '--steps', '2', '--accumulation', '1'],
      ...['-o', at('fewer')],
    );
    expect(fewer.json.losses).toHaveLength(2);
    const emitted = await cliJson('emit', at('a.onnx'), '--config', path, '-o', at('step'));
    expect(emitted.status).toBe(0);
    expect(emitted.json.manifest.optimizer.id).toBe('sgd');
  });
});

describe('several methods on the command line', () => {
  it('take settings and targets each', async () => {
    const out = folder.path('two.onnx');
    const { json } = await cliJson(
      ...['insert', model, '-m', 'lora', '-m', 'dora', '-t', 'lora:query', '-t', 'dora:value'],
      ...['--set', 'lora.rank=2', '--set', 'dora.rank=3', '--alpha', '5', '-o', out],
    );
    expect(
      json.record.entries.map(({ method, config }: Entry) => [method, config.rank, config.alpha]),
    ).toEqual([
      ['lora', 2, 5],
      ['dora', 3, 5],
    ]);
    expect(json.record.sites.map(({ entry, path }: Entry) => [entry, path.split('.').at(-1)])).toEqual([
      [0, 'query'],
      [0, 'query'],
      [1, 'value'],
      [1, 'value'],
    ]);
  });

  it('are told which setting none of them has', async () => {
    const { status, stderr } = await cli('insert', model, '-m', 'lora,dora', '--set', 'rnk=2', '-o', 'x');
    expect(status).toBe(2);
    expect(stderr).toContain("Did you mean 'rank'");
  });

  interface Entry {
    readonly entry: number;
    readonly path: string;
    readonly method: string;
    readonly config: Record<string, unknown>;
  }
});

describe('a mistake is named with its file and place', () => {
  it.each([
    { config: { adaptors: [] }, where: 'c.json', says: "'adapters'" },
    { config: { adapters: [] }, where: 'c.json: adapters', says: 'name a method' },
    { config: { adapters: [{ method: 'lroa' }] }, where: 'c.json: adapters[0].method', says: "'lora'" },
    {
      config: { adapters: [{ method: 'lora' }, { method: 'lora', config: { rnk: 2 } }] },
      where: 'c.json: adapters[1].config',
      says: "'rank'",
    },
    {
      config: { adapters: [{ method: 'lora', config: { rank: 0 } }] },
      where: 'c.json: adapters[0].config.rank',
      says: 'lora',
    },
    {
      config: { adapters: [{ method: 'lora', target: ['q'] }] },
      where: 'c.json: adapters[0]',
      says: "'targets'",
    },
    { config: { train: { learnigRate: 1 } }, where: 'c.json: train', says: "'learningRate'" },
    { config: { train: { loss: 'causal' } }, where: 'c.json: train.loss', says: 'causal-lm' },
    {
      config: { train: { microBatch: 1, accumulation: 2 } },
      where: 'c.json: train',
      says: 'exclude each other',
    },
    { config: { methods: [] }, where: 'c.json', says: 'peft-compile.config.mjs' },
    { config: [], where: 'c.json', says: 'object' },
  ])('$where: $says', async ({ config, where, says }) => {
    const { path } = project('c.json', JSON.stringify(config));
    process.chdir(join(path, '..'));
    const { status, stderr, stdout } = await cli('insert', model, '--config', 'c.json', '-o', 'x.onnx');
    expect([2, 4]).toContain(status);
    expect(stdout).toBe('');
    expect(stderr).toContain(`(at ${where})`);
    expect(stderr).toContain(says);
  });

  it.each([
    ['c.json', '{"seed": 1, "seed": 2}', "'seed' stands twice"],
    ['c.yaml', 'seed: 1\nseed: 2\n', 'unique'],
    ['c.yaml', 'adapters: [', 'not YAML'],
    ['c.toml', '', '.yaml'],
    ['c.mjs', 'export const a = 1;', 'default export'],
  ])('%s: %s', async (name, text, says) => {
    const { path } = project(name, text);
    const { status, stderr } = await cli('insert', model, '--config', path, '-o', 'x.onnx');
    expect(status).toBe(2);
    expect(stderr).toContain(says);
  });

  it('two files in one folder', async () => {
    const { path, at } = project('peft-compile.config.json', '{}');
    writeFileSync(at('peft-compile.config.yaml'), '');
    process.chdir(join(path, '..'));
    const { status, stderr } = await cli('insert', model, '-o', 'x.onnx');
    expect(status).toBe(2);
    expect(stderr).toContain('--config');
  });
});

describe('the JSON schema', () => {
  it('docs/config.schema.json is that of the methods; -u rewrites it', async () => {
    const text = `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
    await expect(text).toMatchFileSnapshot(join(repositoryRoot, 'docs', 'config.schema.json'));
  });

  it('is what the command prints', async () => {
    const { stdout } = await cli('methods', '--schema');
    expect(JSON.parse(stdout)).toEqual(configJsonSchema());
  });

  it('knows every setting of a method under its name', () => {
    const schema = configJsonSchema() as unknown as SchemaOfFile;
    const { allOf } = schema.properties.adapters.items;
    const lora = allOf.find((entry) => entry.if.properties.method.const === 'lora');
    expect(Object.keys(lora?.then.properties.config.properties ?? {})).toContain('rank');
  });

  interface SchemaOfFile {
    readonly properties: {
      readonly adapters: {
        readonly items: {
          readonly allOf: readonly {
            readonly if: { readonly properties: { readonly method: { readonly const: string } } };
            readonly then: {
              readonly properties: { readonly config: { readonly properties: Record<string, unknown> } };
            };
          }[];
        };
      };
    };
  }
});

it('the example of the README is a config', async () => {
  const readme = readFileSync(join(repositoryRoot, 'README.md'), 'utf8');
  const [, text = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? [];
  const { path } = project('peft-compile.config.yaml', text.replace('layer.11', 'layer.1'));
  const out = folder.path('readme.onnx');
  const { status, json } = await cliJson('insert', model, '--config', path, '-o', out);
  expect(status).toBe(0);
  expect(json.record.entries.map(({ method }: { method: string }) => method)).toEqual([
    'lora',
    'ln-tuning',
    'full',
  ]);
  expect(json.record.sites.map(({ path }: { path: string }) => path)).toContain('classifier');
});

describe('methods', () => {
  it('lists presets, and shows what a method brings and why it does not fold', async () => {
    const { stdout } = await cli('methods');
    for (const id of ['mam', 'unipelt', 'houlsby-ln', 'attention-only']) expect(stdout).toContain(id);
    const { json } = await cliJson('methods', 'prefix');
    const [prefix] = json.methods;
    expect(prefix.at[0]).toMatchObject({ kind: 'attention', impossible: expect.stringContaining('adapted') });
    expect(prefix.at[0].params[0]).toMatchObject({ role: 'keys', shape: [12, 10, 64], trainable: true });
    const preset = await cliJson('methods', 'mam');
    expect(preset.json.presets[0].methods.map(({ method }: { method: string }) => method)).toEqual([
      'prefix',
      'parallel',
    ]);
  });

  it('modules to save are trained in full, by flags and beside presets', async () => {
    const out = folder.path('saved.onnx');
    const { json } = await cliJson(
      ...[
        'insert',
        model,
        '-m',
        'attention-only',
        '--layers',
        '0',
        '--modules-to-save',
        'classifier',
        '-o',
        out,
      ],
    );
    expect(json.record.entries.map(({ method }: { method: string }) => method)).toEqual(['full', 'full']);
    expect(json.record.sites.filter(({ entry }: { entry: number }) => entry === 1)).toHaveLength(1);
  });
});
