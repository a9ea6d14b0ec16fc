import type ort from 'onnxruntime-node';
import { expect, test } from 'vitest';
import { findWeightSites, type LinearSite } from '../../passes/sites/index.js';
import { selectSites } from '../../passes/sites/targeting.js';
import { attr } from '../../src/attribute.js';
import { Graph, type Value } from '../../src/graph.js';
import { expectLinear, feed, floats, ints, Sketch } from './graphs.js';

interface Layout {
  readonly name: string;
  readonly x: readonly number[];
  /** Builds the graph over the input and returns its output with its dims. */
  readonly build: (s: Sketch, x: Value) => readonly [Value, readonly number[]];
  readonly stored: boolean;
  readonly opset?: number;
}

const b5 = (s: Sketch): Value => s.weight('m.bias', floats([5], 4));

const LAYOUTS: readonly Layout[] = [
  {
    name: 'MatMul',
    x: [2, 3, 4],
    build: (s, x) => [s.node('MatMul', [x, s.weight('m.weight', floats([4, 5]))]), [2, 3, 5]],
    stored: false,
  },
  {
    name: 'MatMul and bias, bias first',
    x: [2, 3, 4],
    build: (s, x) => {
      const y = s.node('MatMul', [x, s.weight('m.weight', floats([4, 5]))]);
      return [s.node('Add', [b5(s), y]), [2, 3, 5]];
    },
    stored: false,
  },
  {
    name: 'MatMul over a Transpose, bias second with extra axes',
    x: [2, 3, 4],
    build: (s, x) => {
      const w = s.node('Transpose', [s.weight('m.weight', floats([5, 4]))], { perm: attr.ints([1, 0]) });
      const y = s.node('MatMul', [x, w]);
      return [s.node('Add', [y, s.weight('m.bias', floats([1, 1, 5], 4))]), [2, 3, 5]];
    },
    stored: true,
  },
  {
    name: 'MatMul over a Constant, an Identity and a Reshape',
    x: [3, 4],
    build: (s, x) => {
      const constant = s.node('Constant', [], { value: attr.tensor(floats([2, 2, 5])) });
      const same = s.node('Identity', [constant]);
      const w = s.node('Reshape', [same, s.weight('shape', ints([-1, 5]))]);
      return [s.node('MatMul', [x, w]), [3, 5]];
    },
    stored: false,
  },
  {
    name: 'MatMul over Unsqueeze, Transpose of three axes and Squeeze',
    x: [3, 4],
    build: (s, x) => {
      const three = s.node('Unsqueeze', [s.weight('m.weight', floats([5, 4])), s.weight('a', ints([1]))]);
      const turned = s.node('Transpose', [three], { perm: attr.ints([2, 1, 0]) });
      const w = s.node('Squeeze', [turned, s.weight('a2', ints([1]))]);
      return [s.node('MatMul', [x, w]), [3, 5]];
    },
    stored: true,
  },
  {
    name: 'MatMul over two Transposes',
    x: [3, 4],
    build: (s, x) => {
      const t = s.node('Transpose', [s.weight('m.weight', floats([4, 5]))]);
      return [s.node('MatMul', [x, s.node('Transpose', [t])]), [3, 5]];
    },
    stored: false,
  },
  {
    name: 'MatMul over a kernel of three axes turned as a block',
    x: [3, 4],
    build: (s, x) => {
      // Stored [5, 2, 2]; rotated to [2, 2, 5], seen as [4, 5].
      const turned = s.node('Transpose', [s.weight('m.weight', floats([5, 2, 2]))], {
        perm: attr.ints([1, 2, 0]),
      });
      return [s.node('MatMul', [x, s.node('Reshape', [turned, s.weight('shape', ints([4, 5]))])]), [3, 5]];
    },
    stored: true,
  },
  ...[0, 1].flatMap((transA) =>
    [0, 1].map(
      (transB): Layout => ({
        name: `Gemm transA=${transA} transB=${transB} alpha beta`,
        x: transA === 1 ? [4, 3] : [3, 4],
        build: (s, x) => [
          s.node('Gemm', [x, s.weight('m.weight', floats(transB === 1 ? [5, 4] : [4, 5])), b5(s)], {
            transA: attr.int(transA),
            transB: attr.int(transB),
            alpha: attr.float(0.5),
            beta: attr.float(-2),
          }),
          [3, 5],
        ],
        stored: transB === 1,
      }),
    ),
  ),
  {
    name: 'Gemm without bias and an Add behind it',
    x: [3, 4],
    build: (s, x) => {
      const y = s.node('Gemm', [x, s.weight('m.weight', floats([5, 4]))], { transB: attr.int(1) });
      return [s.node('Add', [y, b5(s)]), [3, 5]];
    },
    stored: true,
  },
  ...[0, 1].map(
    (transA): Layout => ({
      name: `FusedMatMul transA=${transA} transB alpha`,
      x: transA === 1 ? [2, 4, 3] : [2, 3, 4],
      build: (s, x) => [
        s.node(
          'FusedMatMul',
          [x, s.weight('m.weight', floats([5, 4]))],
          { transA: attr.int(transA), transB: attr.int(1), alpha: attr.float(3) },
          { domain: 'com.microsoft' },
        ),
        [2, 3, 5],
      ],
      stored: true,
    }),
  ),
  {
    name: '1×1 Conv with bias',
    x: [2, 4, 3, 2],
    build: (s, x) => [s.node('Conv', [x, s.weight('m.weight', floats([5, 4, 1, 1])), b5(s)]), [2, 5, 3, 2]],
    stored: true,
  },
  {
    name: '1×1 Conv and an Add of [out, 1, 1]',
    x: [2, 4, 3, 2],
    build: (s, x) => {
      const y = s.node('Conv', [x, s.weight('m.weight', floats([5, 4, 1, 1]))]);
      return [s.node('Add', [y, s.weight('m.bias', floats([5, 1, 1], 4))]), [2, 5, 3, 2]];
    },
    stored: true,
  },
  ...['abc,cd->abd', 'abc,dc->abd'].map(
    (equation): Layout => ({
      name: `Einsum ${equation}`,
      x: [2, 3, 4],
      build: (s, x) => {
        const w = s.weight('m.weight', floats(equation.includes('cd') ? [4, 5] : [5, 4]));
        const attributes = { equation: { type: 'string', value: equation } } as const;
        return [s.node('Add', [s.node('Einsum', [x, w], attributes), b5(s)]), [2, 3, 5]];
      },
      stored: !equation.includes('cd'),
    }),
  ),
  {
    name: 'Conv1D of GPT-2: Reshape, Gemm, Reshape',
    x: [2, 3, 4],
    build: (s, x) => {
      const flat = s.node('Reshape', [x, s.weight('s2', ints([-1, 4]))]);
      const y = s.node('Gemm', [flat, s.weight('m.weight', floats([4, 5])), b5(s)]);
      return [s.node('Reshape', [y, s.weight('s3', ints([2, 3, 5]))]), [2, 3, 5]];
    },
    stored: false,
  },
];

test.each(LAYOUTS)('$name: y = x W + b as the site sees it', async ({ x: dims, build, stored, opset }) => {
  const s = new Sketch(opset);
  const x = s.input('x', dims);
  const [y, shape] = build(s, x);
  s.output(y, shape);
  const sites = findWeightSites(s.model);
  expect(sites.map(({ kind }) => kind)).toEqual(['linear']);
  const site = sites[0] as LinearSite;
  expect([site.inDim, site.outDim, site.weight.transposed]).toEqual([4, 5, stored]);
  expect(site.node.inputs[site.weight.input]).toBe(site.weight.consumed);
  const feeds: Record<string, ort.Tensor> = { x: feed(dims) };
  await expectLinear(s, site, feeds);
});

test('a bias behind the output is part of y, in either order of operands', () => {
  for (const first of [true, false]) {
    const s = new Sketch();
    const x = s.input('x', [2, 4]);
    const plain = s.node('MatMul', [x, s.weight('m.weight', floats([4, 5]))]);
    const y = s.node('Add', first ? [b5(s), plain] : [plain, b5(s)]);
    s.output(y, [2, 5]);
    const site = findWeightSites(s.model)[0] as LinearSite;
    expect(site.y).toBe(y);
    expect(site.bias).toMatchObject({ included: true, scale: 1 });
    expect(site.bias?.value.name).toBe('m.bias');
  }
});

test('a vector along the width of an image is no bias of its channels', () => {
  const s = new Sketch();
  const y = s.node('Conv', [s.input('x', [1, 4, 5, 5]), s.weight('m.weight', floats([5, 4, 1, 1]))]);
  s.output(s.node('Add', [y, b5(s)]), [1, 5, 5, 5]);
  const site = findWeightSites(s.model)[0] as LinearSite;
  expect([site.y, site.bias]).toEqual([y, undefined]);
});

test('an output that others read too does not take the bias in', () => {
  const s = new Sketch();
  const plain = s.node('MatMul', [s.input('x', [2, 4]), s.weight('m.weight', floats([4, 5]))]);
  s.output(s.node('Add', [plain, b5(s)]), [2, 5]).output(plain, [2, 5]);
  const site = findWeightSites(s.model)[0] as LinearSite;
  expect(site.y).toBe(plain);
  expect(site.bias).toBeUndefined();
});

test('no sites: two activations, constants only, integer tables', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4, 4]);
  const ids = s.input('ids', [3], 'int64');
  s.output(s.node('MatMul', [x, s.node('Relu', [x])]), [2, 4, 4]);
  const constant = s.node('Sqrt', [s.weight('c', floats([4, 4]))]);
  s.output(s.node('MatMul', [constant, s.weight('c.weight', floats([4, 4], 2))]), [4, 4]);
  s.output(s.node('Gather', [s.weight('table', ints([1, 2, 3, 4], [2, 2])), ids]), [3, 2]);
  s.output(s.node('Gather', [s.weight('tables', floats([2, 3, 4])), ids]), [3, 3, 4]);
  expect(findWeightSites(s.model)).toEqual([]);
});

test('3×3, strided and grouped Conv: linears over patches, without an output to add to', () => {
  const s = new Sketch();
  const image = s.input('image', [1, 4, 5, 5]);
  s.output(s.node('Conv', [image, s.weight('k3.weight', floats([6, 4, 3, 3]))]), [1, 6, 3, 3]);
  const strides = { strides: attr.ints([2, 2]) };
  s.output(s.node('Conv', [image, s.weight('k1.weight', floats([6, 4, 1, 1]))], strides), [1, 6, 3, 3]);
  const group = { group: attr.int(2) };
  s.output(s.node('Conv', [image, s.weight('kg.weight', floats([6, 2, 1, 1]))], group), [1, 6, 5, 5]);
  const found = findWeightSites(s.model).map(
    (site) => site.kind === 'linear' && [site.path, site.inDim, site.outDim, site.patches, site.y],
  );
  expect(found).toEqual([
    ['k3', 36, 6, true, undefined],
    ['k1', 4, 6, true, undefined],
    ['kg', 2, 6, true, undefined],
  ]);
  expect(() => selectSites(findWeightSites(s.model), { targets: 'all-linear' })).toThrow('No module is left');
});

test('slices of a batched weight are linears of their own', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4, 4]);
  s.output(s.node('MatMul', [x, s.weight('experts.up', floats([2, 4, 3]))]), [2, 4, 3]);
  const found = findWeightSites(s.model).map(
    (site) => site.kind === 'linear' && [site.path, site.inDim, site.outDim, site.weight.slice],
  );
  expect(found).toEqual([
    ['experts.up.0', 4, 3, { index: 0, count: 2 }],
    ['experts.up.1', 4, 3, { index: 1, count: 2 }],
  ]);
});

test('a Transpose that interleaves axes is no matrix layout', () => {
  const s = new Sketch();
  const turned = s.node('Transpose', [s.weight('m.weight', floats([2, 5, 2]))], {
    perm: attr.ints([2, 0, 1]),
  });
  const w = s.node('Reshape', [turned, s.weight('shape', ints([4, 5]))]);
  s.output(s.node('MatMul', [s.input('x', [3, 4]), w]), [3, 5]);
  // [2, 5, 2] → [2, 2, 5] splits the rows between two stored axes, of which one comes last.
  expect(findWeightSites(s.model)).toEqual([]);
});

test('a quantised weight behind DequantizeLinear computes in float and is marked', () => {
  const s = new Sketch();
  const q = s.weight('m.weight_quantized', ints([]));
  s.graph.initializers.delete(q);
  const tensor = {
    ...floats([4, 5]),
    dtype: 'int8' as const,
    data: ints(Array.from({ length: 20 / 8 + 1 }, (_, i) => i)).data,
  };
  const stored = s.weight('m.weight', tensor);
  const scale = s.weight('scale', floats([], 3));
  const w = s.node('DequantizeLinear', [stored, scale]);
  s.output(s.node('MatMul', [s.input('x', [3, 4]), w]), [3, 5]);
  const site = findWeightSites(s.model)[0] as LinearSite;
  expect(site).toMatchObject({ dtype: 'float32', path: 'm' });
  expect(site.weight.storage).toBe('dequantized');
  expect(site.weight.chain.map(({ op }) => op)).toEqual(['DequantizeLinear']);
});

test('a weight cast on the way gives the dtype the op computes in', () => {
  const s = new Sketch();
  const half = { ...floats([2, 5]), dims: [4, 5], dtype: 'float16' as const };
  const w = s.node('Cast', [s.weight('m.weight', half)], { to: attr.int(1) });
  s.output(s.node('MatMul', [s.input('x', [3, 4]), w]), [3, 5]);
  const site = findWeightSites(s.model)[0] as LinearSite;
  expect([site.dtype, site.weight.value.tensor?.dtype]).toEqual(['float32', 'float16']);
});

test('linears in both branches of an If are calls of one module over the captured weight', () => {
  const s = new Sketch();
  const x = s.input('x', [3, 4]);
  const condition = s.input('use_cache', [], 'bool');
  const w = s.weight('lm.weight', floats([4, 5]));
  const branch = (name: string): Graph => {
    const inner = new Sketch(17, new Graph());
    inner.output(inner.node('MatMul', [x, w], {}, { outputs: [name] }), [3, 5]);
    return inner.graph;
  };
  const then = branch('then_out');
  const otherwise = branch('else_out');
  s.output(
    s.node('If', [condition], {
      then_branch: { type: 'graph', value: then },
      else_branch: { type: 'graph', value: otherwise },
    }),
    [3, 5],
  );
  const sites = findWeightSites(s.model);
  expect(sites.map(({ path, callOf }) => [path, callOf])).toEqual([
    ['lm', undefined],
    ['lm#2', 'lm'],
  ]);
  expect(new Set(sites.map(({ graph }) => graph))).toEqual(new Set([then, otherwise]));
  expect(sites.every(({ weight }) => weight.value === w)).toBe(true);
});

test('an embedding over a plain table and over a transposed one', () => {
  const s = new Sketch();
  const ids = s.input('ids', [2, 3], 'int64');
  s.output(s.node('Gather', [s.weight('wte.weight', floats([7, 4])), ids]), [2, 3, 4]);
  const turned = s.node('Transpose', [s.weight('wpe.weight', floats([4, 6]))]);
  s.output(s.node('Gather', [turned, ids]), [2, 3, 4]);
  expect(
    findWeightSites(s.model).map((site) =>
      site.kind === 'embedding' ? [site.path, site.vocab, site.dim, site.weight.transposed] : [],
    ),
  ).toEqual([
    ['wte', 7, 4, false],
    ['wpe', 6, 4, true],
  ]);
});

test('Einsum over split heads has a weight and no output on one axis; attention products are no sites', () => {
  const s = new Sketch();
  const x = s.input('x', [2, 3, 4]);
  const equation = (value: string) => ({ equation: { type: 'string', value } as const });
  const heads = s.node('Einsum', [x, s.weight('q.kernel', floats([4, 2, 3]))], equation('bsh,hnd->bsnd'));
  const merged = s.node(
    'Einsum',
    [heads, s.weight('o.kernel', floats([2, 3, 4]))],
    equation('bsnd,ndh->bsh'),
  );
  s.output(s.node('Einsum', [merged, merged], equation('bsh,bth->bst')), [2, 3, 3]);
  const sites = findWeightSites(s.model) as LinearSite[];
  expect(sites.map(({ path, inDim, outDim, y }) => [path, inDim, outDim, y])).toEqual([
    ['q', 4, 6, undefined],
    ['o', 6, 4, undefined],
  ]);
});

test('dynamic quantisation: x and y are the floats around the integers', () => {
  const s = new Sketch();
  const x = s.input('x', [3, 8]);
  const [xq, scale, zero] = s.nodes('DynamicQuantizeLinear', [x], {}, { outputs: ['xq', 'xs', 'xz'] });
  const bytes = { ...ints([1, -2, 3, -4, 5]), dims: [8, 5], dtype: 'int8' as const };
  const product = s.node('MatMulInteger', [xq ?? x, s.weight('fc.weight_quantized', bytes), zero ?? x]);
  const scales = s.node('Mul', [scale ?? x, s.weight('ws', floats([1]))]);
  const y = s.node('Mul', [s.node('Cast', [product], { to: attr.int(1) }), scales]);
  const biased = s.node('Add', [y, b5(s)]);
  s.output(biased, [3, 5]);
  expect(findWeightSites(s.model)).toMatchObject([
    { path: 'fc', x, y: biased, inDim: 8, outDim: 5, dtype: 'float32', weight: { storage: 'packed' } },
  ]);
});

test('a linear that reads the transpose of a weight is a module of its own', async () => {
  const s = new Sketch();
  const x = s.input('x', [2, 4]);
  const w = s.weight('code.weight', floats([4, 3]));
  const code = s.node('MatMul', [x, w]);
  const again = s.node('MatMul', [x, w]);
  const back = s.node('MatMul', [code, s.node('Transpose', [w])]);
  s.output(again, [2, 3]);
  s.output(back, [2, 4]);
  const sites = findWeightSites(s.model) as LinearSite[];
  expect(sites.map(({ inDim, outDim, callOf }) => [inDim, outDim, callOf])).toEqual([
    [4, 3, undefined],
    [4, 3, 'code'],
    [3, 4, undefined],
  ]);
  expect(new Set(sites.map(({ path }) => path)).size).toBe(3);
  for (const site of sites) await expectLinear(s, site, { x: feed([2, 4]) });
});
