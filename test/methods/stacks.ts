/**
 * Ordered pairs of methods at one site: the fold of the stack equals the unfolded stack, whose layers act first to last,
 * or the refusal says why. One model holds what makes stacks hard: column ranges of a packed projection, linears that
 * feed linears, a module called twice, a bias that a fused op adds, an embedding, norms. No branch on the method.
 */
import ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import type { AdapterRecord } from '../../passes/adapter-record.js';
import { type FoldTask, planFold, separateShared } from '../../passes/fold/plan.js';
import type { InsertEntry } from '../../passes/insert/entry.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import { type Method, siteKindsOf } from '../../passes/methods/contract/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import { runPasses } from '../../passes/runner.js';
import { findSites, type SiteKind } from '../../passes/sites/index.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { insert } from '../../runtime/library/insert.js';
import { attr } from '../../src/attribute.js';
import { cloneModel } from '../../src/clone.js';
import { PeftCompileError } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { numbers, runModel } from '../helpers/run.js';
import { floats, ints, Sketch } from '../sites/graphs.js';
import { testSettings } from './battery.js';

const WIDTH = 8;

/** One module per trap. */
function trapped(): Model {
  const s = new Sketch();
  s.model.opsets.set('com.microsoft', 1);
  const weight = (name: string, dims: readonly number[], seed: number): Value =>
    s.weight(name, floats(dims, seed));
  const linear = (
    x: Value,
    name: string,
    dims: readonly [number, number],
    seed: number,
    bias: boolean,
  ): Value => {
    const plain = s.node('MatMul', [x, weight(`${name}.weight`, dims, seed)]);
    return bias ? s.node('Add', [plain, weight(`${name}.bias`, [dims[1]], seed + 1)]) : plain;
  };
  const ids = s.input('ids', [2, 3], 'int64');
  const embedded = s.node('Gather', [weight('embed.weight', [11, WIDTH], 1), ids]);
  const norm = s.node('LayerNormalization', [
    embedded,
    weight('norm.weight', [WIDTH], 2),
    weight('norm.bias', [WIDTH], 3),
  ]);
  // A module called twice.
  const shared = weight('shared.weight', [WIDTH, WIDTH], 4);
  const once = s.node('Tanh', [s.node('MatMul', [norm, shared], {}, { name: '/shared/MatMul' })]);
  const twice = s.node('MatMul', [once, shared], {}, { name: '/shared_1/MatMul' });
  // Linears that feed each other.
  const chained = linear(
    linear(s.node('Tanh', [twice]), 'up', [WIDTH, 12], 5, true),
    'down',
    [12, WIDTH],
    7,
    false,
  );
  // A packed projection.
  const packed = linear(s.node('Tanh', [chained]), 'attention.qkv_proj', [WIDTH, 3 * WIDTH], 8, true);
  const [q, k, v] = s.nodes(
    'Split',
    [packed, s.weight('sizes', ints([WIDTH, WIDTH, WIDTH]))],
    { axis: attr.int(-1) },
    { outputs: ['q', 'k', 'v'] },
  ) as [Value, Value, Value];
  const mixed = s.node('Tanh', [s.node('Add', [s.node('Mul', [q, k]), v])]);
  // A bias that joins in a fused op.
  const dense = linear(mixed, 'dense', [WIDTH, WIDTH], 10, false);
  const y = s.node(
    'SkipLayerNormalization',
    [
      dense,
      norm,
      weight('last.weight', [WIDTH], 11),
      weight('last.bias', [WIDTH], 12),
      weight('dense.bias', [WIDTH], 13),
    ],
    {},
    { domain: 'com.microsoft' },
  );
  return s.output(y, [2, 3, WIDTH]).model;
}

/** Groups of sites that a pair meets at: by kind, and the parts of the packed linear instead of the whole. */
const GROUPS: readonly { readonly name: string; readonly kind: SiteKind; readonly parts: boolean }[] = [
  { name: 'linears', kind: 'linear', parts: false },
  { name: 'column ranges', kind: 'linear', parts: true },
  { name: 'embeddings', kind: 'embedding', parts: false },
  { name: 'norms', kind: 'norm', parts: false },
];

type Group = (typeof GROUPS)[number];

function targetsOf(model: Model, { kind, parts }: Group): string[] {
  return findSites(model).flatMap((site) =>
    site.kind === kind &&
    (kind !== 'linear' || (site.kind === 'linear' && (site.packedIn !== undefined) === parts))
      ? [modulePath(site)]
      : [],
  );
}

function entryAt(method: Method, targets: readonly string[]): InsertEntry {
  return { method, config: testSettings(method), targeting: { targets: [...new Set(targets)] } };
}

interface Stacked {
  readonly base: Model;
  readonly unfolded: Model;
  readonly record: AdapterRecord;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** A stack with random parameters; the refusal where one of the methods cannot stand there. */
async function stacked(methods: readonly Method[], group: Group): Promise<Stacked | PeftCompileError> {
  const base = trapped();
  const targets = targetsOf(base, group);
  const inserted = trapped();
  try {
    const entries = methods.map((method) => entryAt(method, targets));
    const { record } = await insert(inserted, { entries, run: { validate: 'edit' } });
    const tensors = randomParameters(record, inserted);
    const unfolded = trapped();
    attachAdapter(unfolded, record, tensors);
    return { base, unfolded, record, tensors };
  } catch (error) {
    if (error instanceof PeftCompileError && error.code === 'E_UNSUPPORTED') return error;
    throw error;
  }
}

/** What a fold writes, computed with sessions of this process: nothing here is the product's own but the plan. */
async function folded({ base, record, tensors }: Stacked): Promise<Folded> {
  const merged = cloneModel(base).model;
  const plan = planFold(merged, record);
  runPasses(merged, [separateShared(plan)], {});
  const results = await Promise.all(plan.tasks.map((task) => evaluated(task, tensors)));
  for (const [index, { target }] of plan.tasks.entries()) target.tensor = results[index];
  if (plan.impossible.length > 0)
    attachAdapter(merged, { ...record, sites: plan.impossible.map(({ site }) => site) }, tensors);
  return { merged, tasks: plan.tasks.length, reasons: plan.impossible.map(({ reason }) => reason) };
}

interface Folded {
  readonly merged: Model;
  readonly tasks: number;
  readonly reasons: readonly string[];
}

async function evaluated(
  { target, formula, inputs }: FoldTask,
  tensors: ReadonlyMap<string, Tensor>,
): Promise<Tensor> {
  const feeds: Record<string, ort.Tensor> = {};
  for (const { name = '' } of formula.graph.inputs) {
    const source = inputs.get(name);
    const tensor =
      source === undefined
        ? target.tensor
        : 'param' in source
          ? tensors.get(source.param.key)
          : source.base.tensor;
    if (tensor === undefined) throw new Error(`no numbers for ${name}`);
    feeds[name] = ortTensor(tensor);
  }
  const { folded } = await runModel(formula, feeds);
  return tensorOf('float32', target.tensor?.dims ?? [], numbers(folded));
}

function ortTensor({ dtype, dims, data }: Tensor): ort.Tensor {
  const bytes = data.read(0, data.byteLength).slice();
  return dtype === 'int64'
    ? new ort.Tensor('int64', new BigInt64Array(bytes.buffer), [...dims])
    : new ort.Tensor('float32', new Float32Array(bytes.buffer), [...dims]);
}

const IDS = new ort.Tensor('int64', BigInt64Array.from([3n, 0n, 7n, 10n, 3n, 5n]), [2, 3]);

async function outputOf(model: Model): Promise<number[]> {
  const results = await runModel(model, { ids: IDS });
  return numbers(Object.values(results)[0]);
}

/** Largest difference relative to the largest number. */
function difference(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...a.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN)))) / scale;
}

/** Sums of some tens of float32 products over seven layers, normalised twice. */
const TOLERANCE = 2e-5;

/** All ordered pairs at some groups of sites, the first of the pair being one of part `index` of `count` of the methods. */
export function pairs(names: readonly string[], index = 0, count = 1): void {
  describe.each(GROUPS.filter(({ name }) => names.includes(name)))('at $name', (group) => {
    const methods = METHODS.filter((method) => siteKindsOf(method).includes(group.kind));
    const firsts = methods.filter((_, i) => i % count === index);
    test.each(firsts.map((method) => [method.id, method] as const))(
      '%s, then any other',
      async (_id, first) => {
        const original = await outputOf(trapped());
        let compared = 0;
        for (const second of methods) {
          const pair = `${first.id}, then ${second.id}`;
          const stack = await stacked([first, second], group);
          if (stack instanceof PeftCompileError) {
            // A refusal names the method and what else to do.
            expect(
              [first.id, second.id].some((id) => stack.message.includes(id)),
              pair,
            ).toBe(true);
            expect(stack.remedy, pair).toBeDefined();
            continue;
          }
          const unfolded = await outputOf(stack.unfolded);
          expect(difference(original, unfolded), pair).toBeGreaterThan(100 * TOLERANCE);
          const { merged, tasks, reasons } = await folded(stack);
          expect(tasks + reasons.length, pair).toBeGreaterThan(0);
          expect(reasons, pair).not.toContain('');
          expect(difference(unfolded, await outputOf(merged)), pair).toBeLessThan(TOLERANCE);
          compared++;
        }
        expect(compared).toBeGreaterThanOrEqual(methods.length / 4);
      },
      120_000,
    );
  });
}

/** Linears that feed linears, named in either order. */
export function chains(): void {
  describe('sites that feed each other', () => {
    const orders = [
      ['down', 'up', 'attention.qkv_proj', 'shared'],
      ['shared', 'attention.qkv_proj', 'up', 'down'],
    ];
    test.each(orders.map((order) => [order.join(', '), order] as const))(
      'wired by %s',
      async (_name, order) => {
        const base = trapped();
        const [lora] = METHODS as [Method];
        const inserted = trapped();
        const { record } = await insert(inserted, {
          entries: order.map((target) => entryAt(lora, [target])),
        });
        const tensors = randomParameters(record, inserted);
        const unfolded = trapped();
        attachAdapter(unfolded, record, tensors);
        const { merged } = await folded({ base, unfolded, record, tensors });
        expect(difference(await outputOf(unfolded), await outputOf(merged))).toBeLessThan(TOLERANCE);
      },
    );
  });
}
