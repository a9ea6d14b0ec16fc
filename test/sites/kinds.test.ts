/** Opened sites compute what the same change, made elsewhere in the model, computes. */
import ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import {
  type AttentionSite,
  findSites,
  payloadOf,
  type Site,
  type SiteKind,
} from '../../passes/sites/index.js';
import { EMPTY_STACK } from '../../passes/sites/kinds/stack.js';
import type { Node, Value } from '../../src/graph.js';
import { inferModel, retype } from '../../src/infer/index.js';
import { decodeNumbers, encodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { Builder } from '../../src/ops/builder.js';
import { sortTopologically } from '../../src/order.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { validateModel } from '../../src/validate.js';
import { modelFixture, modelFixtures } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { irregular } from './graphs.js';
import { expose, parameter, replace } from './open.js';

const sitesOf = <K extends SiteKind>(model: Model, kind: K): Extract<Site, { kind: K }>[] =>
  findSites(model).filter((site): site is Extract<Site, { kind: K }> => site.kind === kind);

/** Token ids in [3, 63], so that no fixture sees padding. */
const token = (i: number): number => 3 + ((i * 37 + 11) % 60);

interface Batch {
  readonly rows: number;
  readonly time: number;
  /** Tokens at the end of row 0 that the mask hides. */
  readonly masked?: number;
  /** Ids that stand in front of every row. */
  readonly front?: readonly number[];
}

function feeds(model: Model, { rows, time, masked = 0, front = [] }: Batch): Record<string, ort.Tensor> {
  const length = time + front.length;
  const cell: Readonly<Record<string, (row: number, at: number) => number>> = {
    input_ids: (row, at) => front[at] ?? token(row * time + at - front.length),
    attention_mask: (row, at) => (row === 0 && at >= length - masked ? 0 : 1),
    token_type_ids: (row, at) => (at < front.length ? 0 : (row + at - front.length) % 2),
  };
  return Object.fromEntries(
    model.graph.inputs.map(({ name = '' }) => [
      name,
      new ort.Tensor(
        'int64',
        BigInt64Array.from({ length: rows * length }, (_, i) =>
          BigInt(cell[name]?.(Math.floor(i / length), i % length) ?? 0),
        ),
        [rows, length],
      ),
    ]),
  );
}

async function logits(model: Model, batch: Batch): Promise<number[]> {
  return numbers((await runModel(model, feeds(model, batch))).logits);
}

function distance(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - (b[i] ?? Number.NaN))), 0);
}

/** Logits are of size 1, float32 sums of some hundred terms. */
const TOLERANCE = 2e-5;

const batchOf = (dynamic: boolean): Batch =>
  dynamic ? { rows: 2, time: 7, masked: 2 } : { rows: 4, time: 12, masked: 3 };

/** Files with external data run only from their folder. */
const runnable = modelFixtures(({ dtype, externalData }) => dtype === 'float32' && !externalData);
const named = (keep: (fixture: (typeof runnable)[number]) => boolean) =>
  runnable.filter(keep).map((fixture) => [fixture.name, fixture] as const);

/** The Add that puts the mask on, and which of its inputs is the mask. */
function maskOf({ softmax, query }: AttentionSite): { node: Node; index: number } {
  let node = softmax.input(0).producer as Node;
  while (node.op !== 'Add') node = node.input(0).producer as Node;
  const scores = (value: Value): boolean =>
    value.producer === query.node ||
    (value.producer?.op === 'Mul' || value.producer?.op === 'Div'
      ? value.producer.input(0).producer === query.node
      : false);
  return { node, index: scores(node.input(0)) ? 1 : 0 };
}

/** Keys and values joined where the graph computes its own, and a mask that lets all see them: what a cache does. */
function joinAsCache(model: Model, site: AttentionSite, keys: Value, values: Value, b: Builder): void {
  const { op } = b;
  const { heads, keyValueHeads, headDim, product, query } = site;
  const length = Number((keys.type as { shape: readonly number[] }).shape.at(-2));
  const spread = (value: Value): Value =>
    op.Reshape(op.Expand(op.Unsqueeze(value, [1]), [1, heads / keyValueHeads, 1, 1]), [
      1,
      heads,
      length,
      headDim,
    ]);
  const batch = op.Slice(op.Shape(query.node.input(0)), [0], [1], [0]);
  const batched = (value: Value): Value => op.Expand(value, op.Concat([batch, [1, 1, 1]], { axis: 0 }));
  const mask = maskOf(site);
  const key = query.node.input(1);
  const value = product.node.input(1);
  const before = mask.node.input(mask.index);
  const graphKeys = op.Mul(op.Transpose(spread(keys), { perm: [0, 1, 3, 2] }), site.keyScale);
  const redirect = [
    { from: key, to: op.Concat([batched(graphKeys), key], { axis: 3 }), at: { node: query.node, index: 1 } },
    { from: value, to: op.Concat([batched(spread(values)), value], { axis: 2 }), at: product },
    { from: before, to: op.Pad(before, [0, 0, 0, length, 0, 0, 0, 0]), at: mask },
  ];
  applyEdit({
    label: 'cache',
    graph: site.graph,
    redirect: redirect.map(({ from, to, at }) => ({
      from,
      to,
      only: (use) => use.kind === 'node' && use.node === at.node && use.index === at.index,
    })),
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  sortTopologically(site.graph);
  retype(
    model,
    redirect.map(({ to }) => to),
  );
}

describe('attention', () => {
  test.each(named(({ opset }) => opset < 23))(
    '%s: more keys and values are those of a cache',
    async (_name, fixture) => {
      const base = readModel(fixture.path);
      const adapted = readModel(fixture.path);
      const cached = readModel(fixture.path);
      const make = (b: Builder, { keyValueHeads, headDim }: AttentionSite, i: number) => ({
        keys: parameter(b, [keyValueHeads, 3, headDim], 10 + i),
        values: parameter(b, [keyValueHeads, 3, headDim], 20 + i),
      });
      for (const [i, site] of sitesOf(adapted, 'attention').entries())
        replace(adapted, site, (_view, b) => make(b, site, i));
      for (const [i, site] of sitesOf(cached, 'attention').entries()) {
        const b = new Builder(cached);
        const { keys, values } = make(b, site, i);
        joinAsCache(cached, site, keys, values, b);
      }
      const batch = batchOf(fixture.dynamic);
      const [plain, changed, wanted] = [
        await logits(base, batch),
        await logits(adapted, batch),
        await logits(cached, batch),
      ];
      expect(distance(changed, wanted)).toBeLessThan(TOLERANCE);
      expect(distance(changed, plain)).toBeGreaterThan(1e-3);
    },
  );

  test('two methods at one attention are one with the keys of both', async () => {
    for (const name of ['llama.dynamo.dynamic', 'gpt2.ts.sdpa', 'bert.ts.opset11']) {
      const stacked = readModel(modelFixture(name).path);
      const joined = readModel(modelFixture(name).path);
      const part = (b: Builder, heads: number, dim: number, length: number, seed: number) =>
        parameter(b, [heads, length, dim], seed);
      for (const site of sitesOf(stacked, 'attention')) {
        const { keyValueHeads: h, headDim: d } = site;
        const stack = replace(stacked, site, (_v, b) => ({
          keys: part(b, h, d, 2, 1),
          values: part(b, h, d, 2, 2),
        }));
        replace(
          stacked,
          site,
          (_v, b) => ({ keys: part(b, h, d, 3, 3), values: part(b, h, d, 3, 4) }),
          stack,
        );
      }
      for (const site of sitesOf(joined, 'attention')) {
        const { keyValueHeads: h, headDim: d } = site;
        const both = (b: Builder, one: number, two: number) =>
          b.op.Concat([part(b, h, d, 2, one), part(b, h, d, 3, two)], { axis: 1 });
        replace(joined, site, (_v, b) => ({ keys: both(b, 1, 3), values: both(b, 2, 4) }));
      }
      const batch = { rows: 3, time: 5, masked: 1 };
      expect(distance(await logits(stacked, batch), await logits(joined, batch))).toBeLessThan(TOLERANCE);
    }
  });

  test('keys with a batch axis, and in float16', async () => {
    const model = readModel(modelFixture('llama.dynamo.dynamic').path);
    const shared = readModel(modelFixture('llama.dynamo.dynamic').path);
    for (const site of sitesOf(model, 'attention'))
      replace(model, site, ({ keyValueHeads: h, headDim: d }, b) => {
        const twice = (seed: number) => b.op.Expand(parameter(b, [1, h, 2, d], seed), [2, h, 2, d]);
        return { keys: twice(1), values: twice(2) };
      });
    for (const site of sitesOf(shared, 'attention'))
      replace(shared, site, ({ keyValueHeads: h, headDim: d }, b) => ({
        keys: parameter(b, [h, 2, d], 1),
        values: parameter(b, [h, 2, d], 2),
      }));
    const batch = { rows: 2, time: 6 };
    expect(distance(await logits(model, batch), await logits(shared, batch))).toBeLessThan(TOLERANCE);
    const half = readModel(modelFixture('llama.dynamo.fp16').path);
    for (const site of sitesOf(half, 'attention'))
      replace(half, site, ({ keyValueHeads: h, headDim: d, dtype }, b) => ({
        keys: parameter(b, [h, 2, d], 1, dtype),
        values: parameter(b, [h, 2, d], 2, dtype),
      }));
    // The weights of the two exports are the same numbers; float16 keeps 11 bits of each of some ten layers.
    const halved = (await runModel(half, feeds(half, batch))).logits;
    expect(halved?.type).toBe('float16');
    expect(distance(numbersOfHalf(halved), await logits(shared, batch))).toBeLessThan(3e-2);
  });
});

/** ONNX Runtime hands out the bits of float16. */
function numbersOfHalf(tensor: ort.Tensor | undefined): number[] {
  const bits = Uint16Array.from(numbers(tensor));
  return Array.from(
    decodeNumbers(tensorOfBytes('float16', [bits.length], new Uint8Array(bits.buffer))),
    Number,
  );
}

/** Numbers of a stored tensor. */
function stored(value: Value): number[] {
  const tensor = payloadOf(value);
  if (tensor === undefined) throw new Error(`${value.label} is not stored`);
  return Array.from(decodeNumbers(tensor), Number);
}

/** Writes other numbers into a stored tensor. */
function store(value: Value, change: (number: number, i: number) => number): void {
  const tensor = payloadOf(value);
  if (tensor === undefined) throw new Error(`${value.label} is not stored`);
  const changed = stored(value).map(change);
  value.tensor = tensorOfBytes(tensor.dtype, tensor.dims, encodeNumbers(tensor.dtype, changed));
}

describe('norm', () => {
  test.each(named(({ variant }) => ['dynamic', 'opset11', 'unfolded'].includes(variant)))(
    '%s: gain and offset',
    async (_name, fixture) => {
      const wired = readModel(fixture.path);
      const written = readModel(fixture.path);
      for (const [k, site] of sitesOf(wired, 'norm').entries())
        replace(wired, site, ({ w, b: offset, dim }, b) => ({
          w: b.op.Add(w, parameter(b, [dim], k)),
          ...(offset === undefined ? {} : { b: b.op.Mul(offset, parameter(b, [dim], 50 + k)) }),
        }));
      for (const [k, { gain, offset, dim }] of sitesOf(written, 'norm').entries()) {
        store(gain.value, (number, i) => number + (irregular(dim, k)[i] ?? 0));
        if (offset !== undefined)
          store(offset.value, (number, i) => number * (irregular(dim, 50 + k)[i] ?? 0));
      }
      const batch = batchOf(fixture.dynamic);
      const changed = await logits(wired, batch);
      expect(distance(changed, await logits(written, batch))).toBeLessThan(TOLERANCE);
      expect(distance(changed, await logits(readModel(fixture.path), batch))).toBeGreaterThan(1e-3);
    },
  );
});

describe('sublayer', () => {
  test.each(named(({ variant }) => ['dynamic', 'opset23', 'opset11'].includes(variant)))(
    '%s: what a block adds is the output of its last linear',
    async (_name, fixture) => {
      const wired = readModel(fixture.path);
      const written = readModel(fixture.path);
      for (const site of sitesOf(wired, 'sublayer'))
        replace(wired, site, ({ z }, b) => ({ z: b.op.Mul(z, -1.5) }));
      for (const { role, weight, bias } of sitesOf(written, 'linear'))
        if (role === 'attention-output' || role === 'down') {
          store(weight.value, (number) => number * -1.5);
          if (bias !== undefined) store(bias.value, (number) => number * -1.5);
        }
      const batch = batchOf(fixture.dynamic);
      const changed = await logits(wired, batch);
      expect(distance(changed, await logits(written, batch))).toBeLessThan(TOLERANCE);
      expect(distance(changed, await logits(readModel(fixture.path), batch))).toBeGreaterThan(1e-3);
    },
  );

  test.each(named(({ variant }) => ['dynamic', 'opset11'].includes(variant)))(
    '%s: x, z and residual join, and normalize is the norm behind the sum',
    async (_name, fixture) => {
      const model = readModel(fixture.path);
      const norms = sitesOf(model, 'norm');
      const pairs: string[] = [];
      for (const [i, site] of sitesOf(model, 'sublayer').entries()) {
        const after = norms.find(({ node }) => site.norm.includes(node));
        let sum: Value | undefined;
        replace(model, site, ({ z, residual, x, normalize, postNorm, dim }, b) => {
          expect((x.type as { shape: readonly unknown[] }).shape).toHaveLength(3);
          expect((x.type as { shape: readonly unknown[] }).shape.at(-1)).toBe(dim);
          sum = normalize(b.op.Add(z, residual));
          expect(postNorm).toBe(after !== undefined);
          return { z: b.op.Identity(z) };
        });
        expose(model, `sum${i}`, sum as Value);
        expose(model, `norm${i}`, after?.y ?? site.node.output(0));
        pairs.push(String(i));
      }
      const results = await runModel(model, feeds(model, batchOf(fixture.dynamic)));
      for (const i of pairs)
        expect(distance(numbers(results[`sum${i}`]), numbers(results[`norm${i}`]))).toBeLessThan(TOLERANCE);
    },
  );
});

describe('position', () => {
  test('absolute positions that are shifted read rows further on', async () => {
    for (const name of [
      'bert.ts.dynamic',
      'gpt2.dynamo.dynamic',
      'roberta.ts.dynamic',
      'distilbert.ts.static',
    ]) {
      const { path, dynamic } = modelFixture(name);
      const shifted = readModel(path);
      const moved = readModel(path);
      for (const site of sitesOf(shifted, 'position'))
        replace(shifted, site, ({ positions }, b) => ({ positions: b.op.Add(positions, 5) }));
      const [site] = sitesOf(moved, 'position');
      const table = sitesOf(moved, 'embedding').find(({ node }) => node === site?.node)?.weight
        .value as Value;
      const rows = stored(table);
      store(table, (_number, i) => rows[i + 5 * 32] ?? 0);
      const batch = batchOf(dynamic);
      const changed = await logits(shifted, batch);
      expect(distance(changed, await logits(moved, batch))).toBeLessThan(TOLERANCE);
      expect(distance(changed, await logits(readModel(path), batch))).toBeGreaterThan(1e-3);
    }
  });

  test('rotary attention sees differences of positions only', async () => {
    for (const name of ['llama.ts.dynamic', 'llama.dynamo.sdpa', 'llama.ts.static']) {
      const { path, dynamic } = modelFixture(name);
      const [plain, shifted, stretched] = [readModel(path), readModel(path), readModel(path)];
      for (const site of sitesOf(shifted, 'position'))
        replace(shifted, site, ({ positions }, b) => ({ positions: b.op.Add(positions, 5) }));
      for (const site of sitesOf(stretched, 'position'))
        replace(stretched, site, ({ positions }, b) => ({ positions: b.op.Mul(positions, 3) }));
      const batch = batchOf(dynamic);
      const base = await logits(plain, batch);
      expect(distance(base, await logits(shifted, batch))).toBeLessThan(TOLERANCE);
      expect(distance(base, await logits(stretched, batch))).toBeGreaterThan(1e-3);
    }
  });
});

describe('prompt', () => {
  const FRONT = [17, 40, 8];

  test.each(named(({ dynamic }) => dynamic))(
    '%s: embeddings of tokens as a prompt are these tokens in front',
    async (_name, fixture) => {
      const batch = { rows: 2, time: 7, masked: 2 };
      const prompted = readModel(fixture.path);
      const [site] = sitesOf(prompted, 'prompt');
      if (site === undefined) throw new Error('no prompt site');
      const inputs = prompted.graph.inputs.map(({ name, type }) => [name, type]);
      const outputs = prompted.graph.outputs.map(({ name, type }) => [name, type]);
      const table = stored(site.weight.value);
      const rows = FRONT.flatMap((id) => table.slice(id * site.dim, (id + 1) * site.dim));
      replace(prompted, site, ({ dim }, b) => ({ prompt: parameter(b, [3, dim], 1, 'float32', rows) }));
      expect(prompted.graph.inputs.map(({ name, type }) => [name, type])).toEqual(inputs);
      expect(prompted.graph.outputs.map(({ name, type }) => [name, type])).toEqual(outputs);
      const base = readModel(fixture.path);
      const whole = (await runModel(base, feeds(base, { ...batch, front: FRONT }))).logits;
      const dims = whole?.dims ?? [];
      const all = numbers(whole);
      const width = dims.at(-1) ?? 1;
      // Rows of virtual tokens are cut off.
      const wanted = dims.length === 3 ? all.filter((_, i) => Math.floor(i / width) % 10 >= 3) : all;
      const result = (await runModel(prompted, feeds(prompted, batch))).logits;
      expect(result?.dims).toEqual(dims.length === 3 ? [2, 7, width] : dims);
      expect(distance(numbers(result), wanted)).toBeLessThan(TOLERANCE);
      expect(distance(await logits(base, batch), numbers(result))).toBeGreaterThan(1e-3);
    },
  );

  test('two prompts at one site: the later stands in front', async () => {
    for (const name of ['gpt2.ts.dynamic', 'bert.dynamo.dynamic']) {
      const stacked = readModel(modelFixture(name).path);
      const joined = readModel(modelFixture(name).path);
      const [one] = sitesOf(stacked, 'prompt');
      const [other] = sitesOf(joined, 'prompt');
      if (one === undefined || other === undefined) throw new Error('no prompt site');
      const stack = replace(
        stacked,
        one,
        ({ dim }, b) => ({ prompt: parameter(b, [2, dim], 1) }),
        EMPTY_STACK,
      );
      replace(stacked, one, ({ dim }, b) => ({ prompt: parameter(b, [4, dim], 2) }), stack);
      replace(joined, other, ({ dim }, b) => ({
        prompt: b.op.Concat([parameter(b, [4, dim], 2), parameter(b, [2, dim], 1)], { axis: 0 }),
      }));
      const batch = { rows: 2, time: 5, masked: 1 };
      expect(distance(await logits(stacked, batch), await logits(joined, batch))).toBeLessThan(TOLERANCE);
    }
  });

  test('a change to the embeddings reaches the tokens and not the prompt', async () => {
    const path = modelFixture('llama.ts.dynamic').path;
    const both = readModel(path);
    const changed = readModel(path);
    const make = (model: Model): void => {
      const [site] = sitesOf(model, 'prompt');
      if (site !== undefined) replace(model, site, ({ dim }, b) => ({ prompt: parameter(b, [3, dim], 1) }));
    };
    // Sites are wired from the last to the first: the prompt stands behind its embedding.
    const [embedding] = sitesOf(both, 'embedding');
    make(both);
    if (embedding !== undefined)
      replace(both, embedding, ({ y, ids, vocab, dim }, b) => ({
        y: b.op.Add(y, b.op.Gather(parameter(b, [vocab, dim], 2), ids)),
      }));
    const table = sitesOf(changed, 'embedding')[0]?.weight.value as Value;
    const delta = irregular(64 * 32, 2);
    store(table, (number, i) => number + (delta[i] ?? 0));
    make(changed);
    const batch = { rows: 2, time: 6, masked: 1 };
    expect(distance(await logits(both, batch), await logits(changed, batch))).toBeLessThan(TOLERANCE);
  });
});

describe('all kinds together', () => {
  test.each(modelFixtures().map((fixture) => [fixture.name, fixture] as const))(
    '%s: the graph stays valid, and what is declared true',
    async (_name, fixture) => {
      const model = readModel(fixture.path);
      const outputs = model.graph.outputs.map(({ name, type }) => [name, type]);
      // Last sites first, as wiring does.
      for (const site of findSites(model).reverse()) openAny(model, site);
      expect(validateModel(model)).toEqual([]);
      expect(inferModel(model)).toEqual([]);
      expect(model.graph.outputs.map(({ name, type }) => [name, type])).toEqual(outputs);
      if (fixture.dtype === 'bfloat16' || fixture.externalData) return;
      const results = await runModel(model, feeds(model, batchOf(fixture.dynamic)));
      expect(numbers(results.logits).every(Number.isFinite)).toBe(true);
    },
  );
});

/** Puts something into every slot of the site that belongs to its kind alone. */
function openAny(model: Model, site: Site): void {
  const own = (b: Builder, shape: readonly number[], seed: number): Value =>
    parameter(b, shape, seed, site.dtype);
  switch (site.kind) {
    case 'norm':
      replace(model, site, ({ w, dim, y }, b) => ({ w: b.op.Add(w, own(b, [dim], 1)), y: b.op.Mul(y, 2) }));
      break;
    case 'sublayer':
      replace(model, site, ({ z, residual, normalize }, b) => ({
        z: b.op.Sub(normalize(b.op.Add(z, residual)), residual),
      }));
      break;
    case 'attention':
      replace(model, site, ({ keyValueHeads, headDim }, b) => ({
        keys: own(b, [keyValueHeads, 2, headDim], 1),
        values: own(b, [keyValueHeads, 2, headDim], 2),
      }));
      break;
    case 'position':
      replace(model, site, ({ positions }, b) => ({ positions: b.op.Add(positions, 2) }));
      break;
    case 'prompt':
      replace(model, site, ({ dim }, b) => ({ prompt: own(b, [2, dim], 3) }));
      break;
    default:
  }
}
