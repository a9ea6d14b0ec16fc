/** Places in forms that the exported fixtures do not have, and look-alikes that are no places. */
import ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { findSites, type Site, type SiteKind } from '../../passes/sites/index.js';
import { Graph, Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type DType, type Shape, tensorType } from '../../src/types.js';
import { numbers, runModel } from '../helpers/run.js';
import { feed, floats, ints } from './graphs.js';
import { expose, replace } from './open.js';

interface Sketchbook {
  readonly b: Builder;
  readonly op: Ops;
  input(name: string, shape: Shape, dtype?: DType): Value;
  weight(name: string, dims: readonly number[], seed?: number): Value;
  /** `x W` with W [in, out] under `path`.weight. */
  linear(path: string, x: Value, inDim: number, outDim: number): Value;
}

/** A model whose graph `build` makes; it returns the outputs by name. */
function model(opset: number, build: (s: Sketchbook) => Readonly<Record<string, Value>>): Model {
  const graph = new Graph();
  const made = new Model(graph);
  made.irVersion = 8;
  made.opsets.set('', opset);
  const b = new Builder(made);
  let seed = 1;
  const weight: Sketchbook['weight'] = (name, dims, own) => {
    const tensor = floats(dims, own ?? seed++);
    return graph.addInitializer(new Value({ name, tensor, type: tensorType('float32', dims) }));
  };
  const outputs = build({
    b,
    op: b.op,
    weight,
    input: (name, shape, dtype = 'float32') =>
      graph.addInput(new Value({ name, type: tensorType(dtype, shape) })),
    linear: (path, x, inDim, outDim) => b.op.MatMul(x, weight(`${path}.weight`, [inDim, outDim])),
  });
  for (const value of b.initializers) {
    value.name = `constant_${value.id}`;
    graph.addInitializer(value);
  }
  for (const node of b.nodes) graph.append(node);
  for (const [name, value] of Object.entries(outputs)) {
    value.name = name;
    graph.addOutput(name, value);
  }
  inferModel(made);
  return made;
}

const only = <K extends SiteKind>(sites: readonly Site[], kind: K): Extract<Site, { kind: K }>[] =>
  sites.filter((site): site is Extract<Site, { kind: K }> => site.kind === kind);
const paths = (sites: readonly Site[]): string[] => sites.map(({ path }) => path);

describe('norms', () => {
  test('as one op: RMSNormalization, SimplifiedLayerNormalization, and with the residual sum', () => {
    const made = model(23, ({ b, op, input, weight }) => {
      const x = input('x', ['n', 8]);
      const [sum] = b.call(
        'SkipSimplifiedLayerNormalization',
        [x, op.RMSNormalization(x, weight('a.weight', [8]), { axis: 1 }), weight('b.weight', [8])],
        {},
        { domain: 'com.microsoft' },
      );
      const [skipped] = b.call(
        'SkipLayerNormalization',
        [x, sum as Value, weight('c.weight', [8]), weight('c.bias', [8])],
        {},
        { domain: 'com.microsoft' },
      );
      return { y: skipped as Value };
    });
    const found = only(findSites(made), 'norm');
    expect(paths(found)).toEqual(['a', 'b', 'c']);
    expect(found.map(({ offset }) => offset !== undefined)).toEqual([false, false, true]);
  });

  test('over another axis than the last, or without a gain, it is none', () => {
    const made = model(17, ({ op, input, weight }) => {
      const x = input('x', ['n', 4, 8]);
      const centred = op.Sub(x, op.ReduceMean(x, [-1]));
      const plain = op.Div(centred, op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), [-1]), 1e-5)));
      return { y: op.LayerNormalization(plain, weight('a.weight', [4, 8]), null, { axis: 1 }) };
    });
    expect(only(findSites(made), 'norm')).toEqual([]);
  });

  test('the gain less one that is stored (Gemma) is the gain', async () => {
    const build = ({ op, input, weight }: Sketchbook) => {
      const x = input('x', ['n', 8]);
      const inverse = op.Reciprocal(op.Sqrt(op.Add(op.ReduceMean(op.Mul(x, x), [-1]), 1e-6)));
      return { y: op.Mul(op.Mul(x, inverse), op.Add(1, weight('norm.weight', [8], 3))) };
    };
    const made = model(18, build);
    const [site] = only(findSites(made), 'norm');
    expect(site).toMatchObject({ path: 'norm', offsetGain: true, dim: 8 });
    if (site === undefined) return;
    replace(made, site, ({ w }, b) => ({ w: b.op.Add(w, 1) }));
    const x = feed([2, 8]);
    const [before, after] = [await runModel(model(18, build), { x }), await runModel(made, { x })];
    const rms = (row: number): number => {
      const own = Array.from(x.data as Float32Array).slice(row * 8, row * 8 + 8);
      return Math.sqrt(own.reduce((sum, v) => sum + v * v, 0) / 8 + 1e-6);
    };
    for (const [i, y] of numbers(after.y).entries())
      expect(y - (numbers(before.y)[i] ?? 0)).toBeCloseTo(Number(x.data[i]) / rms(Math.floor(i / 8)), 5);
  });
});

/** [batch, time, heads·head] to [batch, heads, time, head]. */
const split = (op: Ops, x: Value, heads: number, dim: number): Value =>
  op.Transpose(op.Reshape(x, [0, 0, heads, dim]), { perm: [0, 2, 1, 3] });
const join = (op: Ops, x: Value, width: number): Value =>
  op.Reshape(op.Transpose(x, { perm: [0, 2, 1, 3] }), [0, 0, width]);

describe('attentions', () => {
  test('over another sequence, with keys scaled and roles', () => {
    const made = model(17, ({ op, input, linear }) => {
      const [x, memory] = [input('x', ['b', 't', 8]), input('memory', ['b', 's', 8])];
      const q = split(op, linear('m.q', x, 8, 8), 2, 4);
      const k = op.Transpose(split(op, linear('m.k', memory, 8, 8), 2, 4), { perm: [0, 1, 3, 2] });
      const v = split(op, linear('m.v', memory, 8, 8), 2, 4);
      const scores = op.Div(op.MatMul(op.Mul(q, 0.5), op.Mul(k, 0.25)), 3);
      return { y: op.Add(x, linear('m.o', join(op, op.MatMul(op.Softmax(scores), v), 8), 8, 8)) };
    });
    const sites = findSites(made);
    const [site] = only(sites, 'attention');
    expect(site).toMatchObject({ path: 'm', cross: true, keyScale: 0.25, heads: 2, keyValueHeads: 2 });
    expect(site?.scale).toBeCloseTo(1 / 3);
    expect(site?.hidden?.node.input(site.hidden.index).name).toBe('x');
    expect(only(sites, 'linear').map(({ path, role }) => [path, role])).toEqual([
      ['m.q', 'query'],
      ['m.k', 'key'],
      ['m.v', 'value'],
      ['m.o', 'attention-output'],
    ]);
    expect(only(sites, 'sublayer').map(({ path, role, norm }) => [path, role, norm.length])).toEqual([
      ['m', 'attention', 0],
    ]);
  });

  test('scores of two products, scores behind two caps, heads of unknown number: no site, and roles all the same', () => {
    const shapes: readonly (readonly [string, (op: Ops, q: Value, k: Value) => Value])[] = [
      ['two products', (op, q, k) => op.Add(op.MatMul(q, k), op.MatMul(op.Mul(q, 2), k))],
      ['two caps', (op, q, k) => op.Tanh(op.Tanh(op.MatMul(q, k)))],
    ];
    for (const [name, scores] of shapes) {
      const made = model(17, ({ op, input, linear }) => {
        const x = input('x', ['b', 't', 8]);
        const q = split(op, linear('q', x, 8, 8), 2, 4);
        const k = op.Transpose(split(op, linear('k', x, 8, 8), 2, 4), { perm: [0, 1, 3, 2] });
        const v = split(op, linear('v', x, 8, 8), 2, 4);
        return { y: join(op, op.MatMul(op.Softmax(scores(op, q, k)), v), 8) };
      });
      expect(only(findSites(made), 'attention'), name).toEqual([]);
    }
    const dynamic = model(17, ({ op, input, linear }) => {
      const x = input('x', ['b', 't', 8]);
      const shape = input('shape', [4], 'int64');
      const heads = (value: Value): Value => op.Transpose(op.Reshape(value, shape), { perm: [0, 2, 1, 3] });
      const k = op.Transpose(heads(linear('k', x, 8, 8)), { perm: [0, 1, 3, 2] });
      const scores = op.MatMul(heads(linear('q', x, 8, 8)), k);
      const weighed = op.MatMul(op.Softmax(scores), heads(linear('v', x, 8, 8)));
      return { y: linear('o', join(op, weighed, 8), 8, 8) };
    });
    const sites = findSites(dynamic);
    expect(only(sites, 'attention')).toEqual([]);
    expect(only(sites, 'linear').map(({ role }) => role)).toEqual([
      'key',
      'query',
      'value',
      'attention-output',
    ]);
  });

  /** Attention in a form, over keys and values that others may stand in front of. */
  const FORMS: Readonly<
    Record<string, (op: Ops, sides: readonly Value[], front?: readonly Value[]) => Value>
  > = {
    'with a soft cap': (op, [q, k, v], front = []) => {
      const [keys, values] = [k, v].map((side, i) => inFront(op, split(op, side as Value, 2, 4), front[i]));
      const scores = op.Mul(
        op.MatMul(split(op, q as Value, 2, 4), op.Transpose(keys as Value, { perm: [0, 1, 3, 2] })),
        0.5,
      );
      const capped = op.Mul(op.Tanh(op.Div(scores, 1.5)), 1.5);
      return join(op, op.MatMul(op.Softmax(capped), values as Value), 8);
    },
    'with batch and heads in one axis (BLOOM)': (op, [q, k, v], front = []) => {
      const sides = [q, k, v].map((side, i) =>
        op.Reshape(
          inFront(op, split(op, side as Value, 2, 4), front[i - 1]),
          op.Concat(
            [
              [-1],
              op.Slice(op.Shape(inFront(op, split(op, side as Value, 2, 4), front[i - 1])), [2], [4], [0]),
            ],
            { axis: 0 },
          ),
        ),
      );
      const [queries, keys, values] = sides as [Value, Value, Value];
      const scores = op.Mul(op.MatMul(queries, op.Transpose(keys, { perm: [0, 2, 1] })), 0.5);
      const mixed = op.MatMul(op.Softmax(scores), values);
      return join(
        op,
        op.Reshape(mixed, op.Concat([[-1, 2], op.Slice(op.Shape(mixed), [1], [3], [0])], { axis: 0 })),
        8,
      );
    },
    'time first (torch.nn.MultiheadAttention)': (op, [q, k, v], front = []) => {
      const sides = [q, k, v].map((side, i) => {
        const first = op.Transpose(side as Value, { perm: [1, 0, 2] });
        const flat = op.Transpose(op.Reshape(first, [3, 4, 4]), { perm: [1, 0, 2] });
        const more = front[i - 1];
        return more === undefined
          ? flat
          : op.Concat([op.Reshape(op.Expand(op.Unsqueeze(more, [0]), [2, 2, 2, 4]), [4, 2, 4]), flat], {
              axis: 1,
            });
      });
      const [queries, keys, values] = sides as [Value, Value, Value];
      const weights = op.Softmax(op.MatMul(op.Mul(queries, 0.5), op.Transpose(keys, { perm: [0, 2, 1] })));
      const first = op.Reshape(op.Transpose(op.MatMul(weights, values), { perm: [1, 0, 2] }), [3, 2, 8]);
      return op.Transpose(first, { perm: [1, 0, 2] });
    },
  };
  /** [heads, length, head] in front of [batch, heads, time, head]. */
  const inFront = (op: Ops, side: Value, more: Value | undefined): Value =>
    more === undefined
      ? side
      : op.Concat([op.Expand(op.Unsqueeze(more, [0]), [2, 1, 1, 1]), side], { axis: 2 });

  test.each(Object.entries(FORMS))(
    '%s: more keys and values are as if they were its own',
    async (_name, form) => {
      const build = (whole: boolean) =>
        model(17, ({ op, input, linear, weight }) => {
          const x = input('x', [2, 3, 8]);
          const sides = ['q', 'k', 'v'].map((name) => linear(name, x, 8, 8));
          const front = whole ? [weight('keys', [2, 2, 4], 9), weight('values', [2, 2, 4], 10)] : [];
          return { y: form(op, sides, front) };
        });
      const made = build(false);
      const [site] = only(findSites(made), 'attention');
      expect(site).toMatchObject({ heads: 2, keyValueHeads: 2, headDim: 4 });
      if (site === undefined) return;
      replace(made, site, (_view, b) => ({
        keys: b.constant(floats([2, 2, 4], 9)),
        values: b.constant(floats([2, 2, 4], 10)),
      }));
      const x = feed([2, 3, 8]);
      const [ours, theirs] = [await runModel(made, { x }), await runModel(build(true), { x })];
      for (const [i, y] of numbers(theirs.y).entries()) expect(numbers(ours.y)[i]).toBeCloseTo(y, 5);
    },
  );

  test('projections packed head by head (GPT-NeoX), and one key head for all queries', () => {
    const made = model(17, ({ op, input, linear }) => {
      const x = input('x', ['b', 't', 8]);
      const heads = split(op, linear('attn.qkv', x, 8, 24), 2, 12);
      const [q, k, v] = op.Split(heads, [4, 4, 4], { axis: -1 }, 3);
      const scores = op.Mul(op.MatMul(q, op.Transpose(k, { perm: [0, 1, 3, 2] })), 0.5);
      const y = linear('attn.out', join(op, op.MatMul(op.Softmax(scores), v), 8), 8, 8);
      const single = split(op, linear('more.k', y, 8, 4), 1, 4);
      const queries = split(op, linear('more.q', y, 8, 8), 2, 4);
      const shared = op.Softmax(op.MatMul(queries, op.Transpose(single, { perm: [0, 1, 3, 2] })));
      return { y: join(op, op.MatMul(shared, split(op, linear('more.v', y, 8, 4), 1, 4)), 8) };
    });
    const sites = findSites(made);
    expect(
      only(sites, 'attention').map(({ path, heads, keyValueHeads }) => [path, heads, keyValueHeads]),
    ).toEqual([
      ['attn', 2, 2],
      ['more', 2, 1],
    ]);
    expect(only(sites, 'linear').find(({ path }) => path === 'attn.qkv')?.role).toBe('packed');
  });

  test('a Softmax over classes or experts is none', () => {
    const made = model(17, ({ op, input, linear }) => {
      const x = input('x', ['b', 't', 8]);
      return { y: op.Mul(op.Softmax(linear('router', x, 8, 8)), x) };
    });
    expect(only(findSites(made), 'attention')).toEqual([]);
  });
});

describe('blocks', () => {
  test('a feed-forward behind its own norms, scaled, beside attention', () => {
    const made = model(17, ({ op, input, linear, weight }) => {
      const x = input('x', ['b', 't', 8]);
      const norm = op.LayerNormalization(x, weight('ln.weight', [8]), weight('ln.bias', [8]), { axis: -1 });
      const q = split(op, linear('h.0.attn.q', norm, 8, 8), 2, 4);
      const k = op.Transpose(split(op, linear('h.0.attn.k', norm, 8, 8), 2, 4), { perm: [0, 1, 3, 2] });
      const v = split(op, linear('h.0.attn.v', norm, 8, 8), 2, 4);
      const z = linear('h.0.attn.o', join(op, op.MatMul(op.Softmax(op.MatMul(q, k)), v), 8), 8, 8);
      const mlp = linear('h.0.mlp.down', op.Relu(linear('h.0.mlp.up', norm, 8, 16)), 16, 8);
      // GPT-J: both read the same norm, and join one after the other.
      return { y: op.Add(op.Mul(mlp, weight('scale', [8])), op.Add(z, x)) };
    });
    const found = only(findSites(made), 'sublayer');
    expect(found.map(({ path, role, input, norm }) => [path, role, input, norm.length])).toEqual([
      ['h.0.attn', 'attention', 0, 0],
      ['h.0.mlp', 'feed-forward', 0, 0],
    ]);
  });

  test('the gate of two factors is the one with the activation, in either order', () => {
    for (const swapped of [false, true]) {
      const made = model(17, ({ op, input, linear }) => {
        const x = input('x', ['b', 't', 8]);
        const [a, c] = [linear('mlp.a', x, 8, 16), linear('mlp.c', x, 8, 16)];
        const product = swapped ? op.Mul(a, op.Mul(c, op.Sigmoid(c))) : op.Mul(op.Gelu(a), c);
        return { y: op.Add(x, linear('mlp.d', product, 16, 8)) };
      });
      const roles = Object.fromEntries(only(findSites(made), 'linear').map(({ path, role }) => [path, role]));
      expect(roles).toEqual({
        'mlp.a': swapped ? 'up' : 'gate',
        'mlp.c': swapped ? 'gate' : 'up',
        'mlp.d': 'down',
      });
      const [block] = only(findSites(made), 'sublayer');
      expect(block?.entry.node.input(block.entry.index).name).toBe('x');
    }
  });

  test('sums that are no residual: embeddings, gelu, a linear beside another', () => {
    const made = model(17, ({ op, input, linear }) => {
      const x = input('x', ['b', 't', 8]);
      const y = op.Add(linear('a', x, 8, 8), linear('b', x, 8, 8));
      return { y: op.Add(y, op.Mul(op.Mul(y, y), 0.04)) };
    });
    expect(only(findSites(made), 'sublayer')).toEqual([]);
  });

  test('a fused sum: what the block adds has its bias, and the norm is applied to other values', async () => {
    const build = ({ b, op, input, linear, weight }: Sketchbook) => {
      const x = input('x', ['b', 't', 8]);
      const z = linear('mlp.down', op.Relu(linear('mlp.up', x, 8, 16)), 16, 8);
      const [y] = b.call(
        'SkipLayerNormalization',
        [z, x, weight('ln.weight', [8], 5), weight('ln.bias', [8], 6), weight('mlp.down.bias', [8], 7)],
        { epsilon: 1e-5 },
        { domain: 'com.microsoft' },
      );
      return { y: y as Value };
    };
    const made = model(17, build);
    const [site] = only(findSites(made), 'sublayer');
    if (site === undefined) throw new Error('no block');
    expect([site.path, site.role, site.norm.length]).toEqual(['mlp', 'feed-forward', 1]);
    let again: Value | undefined;
    replace(made, site, ({ z, residual, normalize }, b) => {
      again = normalize(b.op.Add(residual, b.op.Mul(z, 3)));
      return { z: b.op.Mul(z, 3) };
    });
    expose(made, 'again', again as Value);
    const x = feed([2, 3, 8]);
    const results = await runModel(made, { x });
    const plain = numbers((await runModel(model(17, build), { x })).y);
    const [y, same] = [numbers(results.y), numbers(results.again)];
    for (const [i, value] of y.entries()) expect(value).toBeCloseTo(same[i] ?? Number.NaN, 4);
    expect(Math.max(...y.map((value, i) => Math.abs(value - (plain[i] ?? 0))))).toBeGreaterThan(0.1);
  });
});

describe('prompts', () => {
  interface Extra {
    readonly name: string;
    readonly shape: Shape;
    readonly dtype?: DType;
  }

  const withInput = (extra: Extra): Model =>
    model(17, ({ op, input, weight }) => {
      const ids = input('input_ids', ['b', 't'], 'int64');
      const added = input(extra.name, extra.shape, extra.dtype ?? 'int64');
      const y = op.Gather(weight('wte.weight', [32, 8]), ids);
      return { y, seen: op.Cast(added, { to: 'float32' }) };
    });

  test('inputs of known meaning only', () => {
    const fills = (extra: Extra) =>
      only(findSites(withInput(extra)), 'prompt').flatMap(({ inputs }) => inputs.map(({ fill }) => fill));
    expect(fills({ name: 'attention_mask', shape: ['b', 't'] })).toEqual(['token', 'one']);
    expect(fills({ name: 'token_type_ids', shape: ['b', 't'] })).toEqual(['token', 'zero']);
    expect(fills({ name: 'position_ids', shape: ['b', 't'] })).toEqual(['token', 'position']);
    expect(fills({ name: 'features', shape: ['b', 8], dtype: 'float32' })).toEqual(['token']);
    expect(fills({ name: 'language', shape: ['b', 't'] })).toEqual([]);
    expect(fills({ name: 'attention_mask', shape: ['b', 1, 't', 't'], dtype: 'float32' })).toEqual([]);
    expect(fills({ name: 'attention_mask', shape: ['b', 'past + t'] })).toEqual([]);
    expect(fills({ name: 'past', shape: ['b', 2, 'past', 4], dtype: 'float32' })).toEqual([]);
  });

  test('positions that are fed go up behind those of the prompt', async () => {
    const made = model(17, ({ op, input, weight }) => {
      const ids = input('input_ids', ['b', 't'], 'int64');
      const positions = input('position_ids', ['b', 't'], 'int64');
      const tokens = op.Gather(weight('wte.weight', [32, 8], 1), ids);
      const y = op.Add(tokens, op.Gather(weight('wpe.weight', [16, 8], 2), positions));
      return { y: op.Sub(y, op.ReduceMean(y, [1])) };
    });
    const sites = findSites(made);
    expect(paths(only(sites, 'position'))).toEqual(['position_ids']);
    const [site] = only(sites, 'prompt');
    if (site === undefined) throw new Error('no prompt site');
    expect(site.outputs.map(({ axis }) => axis)).toEqual([1]);
    const whole = made.graph.outputs[0]?.value as Value;
    replace(made, site, (_view, b) => ({
      prompt: b.op.Gather(site.weight.value, b.constant(ints([7, 9]))),
    }));
    expose(made, 'whole', whole);
    const int64 = (row: readonly number[]) =>
      new ort.Tensor('int64', BigInt64Array.from(row.map(BigInt)), [1, row.length]);
    const feeds = { input_ids: int64([3, 4, 5]), position_ids: int64([0, 1, 2]) };
    const results = await runModel(made, feeds);
    expect(results.y?.dims).toEqual([1, 3, 8]);
    expect(results.whole?.dims).toEqual([1, 5, 8]);
    const [wte, wpe] = [floats([32, 8], 1), floats([16, 8], 2)].map(
      (tensor) => new Float32Array(tensor.data.read(0, tensor.data.byteLength).slice().buffer),
    );
    const rows = [7, 9, 3, 4, 5].map((id, at) =>
      Array.from({ length: 8 }, (_, j) => (wte?.[id * 8 + j] ?? 0) + (wpe?.[at * 8 + j] ?? 0)),
    );
    const wanted = rows.flatMap((row) =>
      row.map((value, j) => value - rows.reduce((sum, other) => sum + (other[j] ?? 0), 0) / 5),
    );
    for (const [i, value] of numbers(results.whole).entries()) expect(value).toBeCloseTo(wanted[i] ?? 0, 5);
  });
});

test('parallel residuals (GPT-NeoX): two blocks of one stream, each added before the sum', async () => {
  const build = (more: boolean) =>
    model(17, ({ op, input, linear }) => {
      const x = input('x', [2, 3, 8]);
      const [q, k, v] = ['q', 'k', 'v'].map((name) => split(op, linear(`attn.${name}`, x, 8, 8), 2, 4));
      const weights = op.Softmax(op.MatMul(q as Value, op.Transpose(k as Value, { perm: [0, 1, 3, 2] })));
      const attention = linear('attn.out', join(op, op.MatMul(weights, v as Value), 8), 8, 8);
      const inner = linear('mlp.down', op.Relu(linear('mlp.up', x, 8, 12)), 12, 8);
      const ffn = more ? op.Add(op.Mul(inner, 2), x) : inner;
      return { y: op.Add(op.Add(ffn, attention), x) };
    });
  const made = build(false);
  const found = only(findSites(made), 'sublayer');
  expect(found.map(({ path, role }) => [path, role])).toEqual([
    ['mlp', 'feed-forward'],
    ['attn', 'attention'],
  ]);
  const [site] = found;
  if (site === undefined) return;
  // z' = z + (z + residual): the stream is what the view calls the residual, and not the other block.
  replace(made, site, ({ z, residual }, { op }) => ({ z: op.Add(z, op.Add(z, residual)) }));
  const x = feed([2, 3, 8]);
  const [ours, theirs] = [await runModel(made, { x }), await runModel(build(true), { x })];
  for (const [i, y] of numbers(theirs.y).entries()) expect(numbers(ours.y)[i]).toBeCloseTo(y, 4);
});
