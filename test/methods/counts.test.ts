/** Trainable parameters on BERT-base as the papers and their code count them; heads are not among them. */
import { describe, expect, it } from 'vitest';
import type { InsertEntry } from '../../passes/insert/entry.js';
import { countWeights } from '../../passes/insert/insert.js';
import { type PlannedModule, planInsert, planModules } from '../../passes/insert/plan.js';
import { configure } from '../../passes/methods/contract/configurable.js';
import { type ParamSpecs, rulesFor } from '../../passes/methods/contract/method.js';
import { dimsOf } from '../../passes/sites/kinds/index.js';
import { BERT_BASE_PARAMETERS, bertBase } from '../helpers/bert-base.js';

interface Count {
  readonly method: string;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly targets?: string | string[];
  readonly exclude?: string[];
  readonly trainable: number;
  /** Trained numbers that an adapter file holds, where these are fewer: a structure of training collapses. */
  readonly stored?: number;
}

const queryValue = ['query', 'value'];

const COUNTS: readonly Count[] = [
  { method: 'lora', config: { rank: 8 }, targets: queryValue, trainable: 294_912 },
  {
    method: 'lora',
    config: { rank: 8, bias: 'lora_only' },
    targets: queryValue,
    trainable: 294_912 + 24 * 768,
  },
  { method: 'dora', config: { rank: 8 }, targets: queryValue, trainable: 313_344 },
  { method: 'loha', config: { rank: 8 }, targets: queryValue, trainable: 589_824 },
  { method: 'lokr', config: { rank: 8 }, targets: queryValue, trainable: 26_112 },
  { method: 'krona', targets: queryValue, trainable: 38_400 },
  { method: 'vera', config: { rank: 1024 }, targets: queryValue, trainable: 43_008 },
  {
    method: 'vb-lora',
    config: { rank: 4, vectors: 90, vectorLength: 256, compact: true },
    targets: queryValue,
    trainable: 74_880,
    stored: 23_616,
  },
  {
    method: 'lora-xs',
    config: { rank: 8 },
    targets: ['query', 'value', 'attention.output.dense', 'output.dense'],
    trainable: 3_072,
  },
  // Keys, values and down projections: the paper's own choice, found by their roles.
  { method: 'ia3', trainable: 55_296 },
  { method: 'bitfit', exclude: ['classifier'], trainable: 102_912 },
  { method: 'ln-tuning', trainable: 38_400 },
  { method: 'full', targets: ['classifier'], trainable: 768 * 2 + 2 },
  { method: 'attention-only', trainable: 12 * 4 * (768 * 768 + 768) },
  { method: 'hiwi', config: { rank: 4 }, trainable: 368_640, stored: 46_080 },
  { method: 'hiwi', config: { rank: 16 }, trainable: 4 * 368_640, stored: 46_080 },
  { method: 'houlsby', config: { size: 64 }, trainable: 2_379_264 },
  { method: 'pfeiffer', config: { size: 48 }, trainable: 894_528 },
  { method: 'parallel', config: { size: 16 }, trainable: 304_320 },
  { method: 'parallel', config: { size: 16, scaling: 'learned' }, trainable: 304_320 + 12 },
  // Compacter++
  { method: 'compacter', config: { size: 24 }, targets: 'role:feed-forward', trainable: 28_576 },
  {
    method: 'compacter',
    config: { size: 24, dense: true },
    targets: 'role:feed-forward',
    trainable: 28_576,
    stored: 12 * (2 * 768 * 24 + 24 + 768),
  },
  // The PHM adapter: whole B_i, two rules per adapter.
  {
    method: 'compacter',
    config: { size: 24, divisor: 12, factorized: false, shareRule: false },
    trainable: 24 * (2 * 12 ** 3 + (2 * 768 * 24) / 12 + 24 + 768),
  },
  { method: 'prompt', config: { length: 100 }, trainable: 76_800 },
  {
    method: 'p-tuning',
    config: { length: 100 },
    trainable: 76_800 + 3 * (768 * 768 + 768),
    stored: 76_800,
  },
  {
    method: 'p-tuning',
    config: { length: 20, encoder: 'lstm', hidden: 384 },
    trainable:
      20 * 768 +
      // Two layers in two directions, inputs of 768 each, four gates, two biases.
      4 * (4 * 384 * (768 + 384) + 2 * 4 * 384) +
      2 * (768 * 768 + 768),
    stored: 20 * 768,
  },
  { method: 'prefix', config: { length: 10 }, trainable: 184_320 },
  {
    method: 'prefix',
    config: { length: 10, projection: true, hidden: 512 },
    trainable: 10 * 768 + 768 * 512 + 512 + 12 * (512 * 2 * 768 + 2 * 768),
    stored: 184_320,
  },
  { method: 'lora', config: { rank: 8, gating: true }, targets: queryValue, trainable: 294_912 + 24 * 769 },
];

/** Numbers of every tensor once, of those that train. */
class Tally {
  readonly #sizes = new Map<string, number>();

  add(key: string, { shape, trainable = true }: ParamSpecs[string]): void {
    if (trainable)
      this.#sizes.set(
        key,
        shape.reduce((product, dim) => product * dim, 1),
      );
  }

  get total(): number {
    return [...this.#sizes.values()].reduce((sum, size) => sum + size, 0);
  }
}

/** Parameters of an insertion, and what of them an adapter file holds. */
function count(entry: InsertEntry): { trainable: number; stored: number } {
  const plan = planInsert(bertBase(), [entry]);
  const trainable = new Tally();
  const stored = new Tally();
  for (const module of planModules(plan)) {
    const method = plan.entries[module.entry]!.method;
    for (const { key, spec } of module.params) trainable.add(key, spec);
    const rest = rulesFor(method, module.kind, module.path).collapse;
    if (rest === undefined || rest.when?.(module.config) === false)
      for (const { key, spec } of module.params) stored.add(key, spec);
    else for (const [key, spec] of collapsed(module, rest)) stored.add(key, spec);
  }
  return { trainable: trainable.total, stored: stored.total };
}

type Rest = NonNullable<ReturnType<typeof rulesFor>['collapse']>;

function collapsed({ sites, config, path, kind }: PlannedModule, rest: Rest): [string, ParamSpecs[string]][] {
  const dims = dimsOf(sites[0]!);
  const settings = configure(rest.method, rest.config(config, dims));
  const own = rulesFor(rest.method, kind, path).params(dims, settings);
  return [
    ...Object.entries(own).map(([role, spec]): [string, ParamSpecs[string]] => [`${path}.${role}`, spec]),
    ...Object.entries(rest.method.shared?.([], settings) ?? {}),
  ];
}

describe('parameters on BERT-base', () => {
  it('has all of them', () => {
    const classifier = 768 * 2 + 2;
    expect(countWeights(bertBase())).toBe(BERT_BASE_PARAMETERS + classifier);
  });

  it.each(COUNTS.map((row) => [`${row.method} ${JSON.stringify(row.config ?? {})}`, row] as const))(
    '%s',
    (_, { method, config = {}, targets, exclude, trainable, stored = trainable }) => {
      const targeting = {
        ...(targets === undefined ? {} : { targets }),
        ...(exclude === undefined ? {} : { exclude }),
      };
      expect(count({ method, config, targeting })).toEqual({ trainable, stored });
    },
  );
});
