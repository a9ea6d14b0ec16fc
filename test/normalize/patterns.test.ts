/** Patterns are raised to one node, and the model still computes the same. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { normalizeForTraining } from '../../passes/normalize/index.js';
import { raiseOpsetPass } from '../../passes/normalize/raise-opset.js';
import { runPasses } from '../../passes/runner.js';
import { cloneModel } from '../../src/clone.js';
import { inferModel } from '../../src/infer/index.js';
import { randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { parseModel } from '../../src/text/index.js';
import { numbers, runModel } from '../helpers/run.js';

function random(key: string, dims: readonly number[]): ort.Tensor {
  const next = randomStream(3, key);
  const count = dims.reduce((a, b) => a * b, 1);
  return new ort.Tensor(
    'float32',
    Float32Array.from({ length: count }, () => next() * 3 - 1.5),
    dims,
  );
}

/** Operators after normalisation; both models have to agree on random inputs. */
async function normalised(text: string, opset = 17): Promise<string[]> {
  const model = parseModel(`<ir_version: 10, opset_import: ["": ${opset}, "com.microsoft": 1]>\n${text}`);
  inferModel(model);
  const after: Model = cloneModel(model).model;
  inferModel(after);
  runPasses(after, normalizeForTraining);
  const feeds = Object.fromEntries(
    model.graph.inputs.map((input): [string, ort.Tensor] => {
      if (input.type?.kind !== 'tensor') throw new Error('not a tensor');
      const dims = (input.type.shape ?? []).map((dim) => (typeof dim === 'number' ? dim : 2));
      if (input.type.dtype === 'float32') return [input.name ?? '', random(input.name ?? '', dims)];
      const count = dims.reduce((a, b) => a * b, 1);
      const ints = Array.from({ length: count }, (_, i) => (i * 5 + 1) % 3);
      if (input.type.dtype === 'int32')
        return [input.name ?? '', new ort.Tensor('int32', Int32Array.from(ints), dims)];
      return [input.name ?? '', new ort.Tensor('int64', BigInt64Array.from(ints, BigInt), dims)];
    }),
  );
  const [a, b] = [await runModel(model, feeds), await runModel(after, feeds)];
  for (const name of Object.keys(a)) {
    const [x, y] = [numbers(a[name]), numbers(b[name])];
    const scale = Math.max(1, ...x.map(Math.abs));
    // A handful of float32 roundings, in another order.
    x.forEach((value, i) => {
      expect(Math.abs(value - (y[i] ?? Number.NaN))).toBeLessThanOrEqual(scale * 64 * 2 ** -24);
    });
  }
  return [...after.graph.nodes()].map((node) => node.op);
}

describe('GELU', () => {
  it.each([
    ['TorchScript', 'a = Div(x, k) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)', '1.4142135'],
    ['dynamo', 'h = Mul(half, x) a = Mul(x, k) b = Erf(a) c = Add(one, b) y = Mul(h, c)', '0.70710677'],
  ])('with Erf as %s writes it', async (_, body, k) => {
    const text = `g (float[2,8] x) => (float[2,8] y) <float one = {1}, float half = {0.5}, float k = {${k}}> { ${body} }`;
    expect(await normalised(text)).toEqual(['Gelu']);
  });

  it('with Tanh as GPT-2 writes it', async () => {
    const text = `g (float[2,8] x) => (float[2,8] y)
      <float one = {1}, float half = {0.5}, float three = {3}, float a = {0.044715}, float k = {0.7978846}> {
      h = Mul(half, x) p = Pow(x, three) q = Mul(a, p) r = Add(x, q) s = Mul(k, r) t = Tanh(s) u = Add(one, t)
      y = Mul(h, u) }`;
    expect(await normalised(text)).toEqual(['Gelu']);
  });

  it('with x·x·x and x·(1 + …)', async () => {
    const text = `g (float[2,8] x) => (float[2,8] y)
      <float one = {1}, float half = {0.5}, float a = {0.044715}, float k = {0.7978846}> {
      w = Mul(x, x) q = Mul(w, a) r = Add(q, one) m = Mul(x, k) s = Mul(m, r) t = Tanh(s) u = Add(t, one)
      v = Mul(x, u) y = Mul(v, half) }`;
    expect(await normalised(text)).toEqual(['Gelu']);
  });

  it('is left alone when a constant differs or the gate is of another value', async () => {
    const body = (k: string, gated: string) => `g (float[2,8] x, float[2,8] z) => (float[2,8] y)
      <float one = {1}, float half = {0.5}, float k = {${k}}> {
      a = Mul(${gated}, k) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half) }`;
    expect(await normalised(body('0.8', 'x'))).not.toContain('Gelu');
    expect(await normalised(body('0.70710677', 'z'))).not.toContain('Gelu');
  });
});

describe('layer normalisation', () => {
  it('is raised from its parts, with its statistics for the gradient', async () => {
    const text = `g (float[2,3,8] x, float[8] s, float[8] c) => (float[2,3,8] y)
      <float eps = {0.00001}, float two = {2}> {
      m = ReduceMean <axes = [-1]> (x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean <axes = [-1]> (p)
      e = Add(v, eps) r = Sqrt(e) q = Div(d, r) t = Mul(q, s) y = Add(t, c) }`;
    expect(await normalised(text)).toEqual(['LayerNormalization']);
    expect(await normalised(text, 11)).toEqual(['LayerNormalization']);
  });

  it('is left alone over another axis', async () => {
    const text = `g (float[2,8,8] x, float[8] s, float[8] c) => (float[2,8,8] y)
      <float eps = {0.00001}, float two = {2}> {
      m = ReduceMean <axes = [1]> (x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean <axes = [1]> (p)
      e = Add(v, eps) r = Sqrt(e) q = Div(d, r) t = Mul(q, s) y = Add(t, c) }`;
    expect(await normalised(text)).not.toContain('LayerNormalization');
  });
});

describe('what does nothing', () => {
  it('goes: constants become initializers, inference Dropout and Identity vanish', async () => {
    const text = `g (float[2,8] x) => (float[2,8] y) {
      c = Constant <value_float = 2.0> () d = Dropout(x) i = Identity(d) y = Mul(i, c) }`;
    expect(await normalised(text)).toEqual(['Mul']);
  });
});

describe('slices', () => {
  it('that partition an axis become a Split', async () => {
    const text = `g (float[2,3,8] x) => (float[2,3,8] y)
      <int64[1] zero = {0}, int64[1] four = {4}, int64[1] end = {9223372036854775807}, int64[1] last = {-1}> {
      a = Slice(x, zero, four, last) b = Slice(x, four, end, last) n = Neg(b) y = Concat <axis = -1> (n, a) }`;
    expect(await normalised(text)).toEqual(['Split', 'Neg', 'Concat']);
  });

  it('with a gap stay', async () => {
    const text = `g (float[2,8] x) => (float[2,6] y)
      <int64[1] zero = {0}, int64[1] three = {3}, int64[1] five = {5}, int64[1] end = {8}, int64[1] last = {-1}> {
      a = Slice(x, zero, three, last) b = Slice(x, five, end, last) y = Concat <axis = -1> (b, a) }`;
    expect(await normalised(text)).toEqual(['Slice', 'Slice', 'Concat']);
  });
});

describe('linear layers', () => {
  it('with a bias become one Gemm', async () => {
    const text = `g (float[2,3,8] x) => (float[2,3,4] y) <float[8,4] w = {0.1,0.2,-0.3,0.4,0.5,0.6,-0.7,0.8,0.9,1,1.1,1.2,
      1.3,-1.4,1.5,1.6,1.7,1.8,1.9,-2,2.1,2.2,2.3,2.4,-2.5,2.6,2.7,2.8,2.9,3,3.1,3.2}, float[4] b = {1, 2, 3, 4}> {
      m = MatMul(x, w) y = Add(b, m) }`;
    expect(await normalised(text)).toEqual(['Reshape', 'Gemm', 'Reshape']);
  });

  it('stay when something else reads the product', async () => {
    const text = `g (float[2,3,2] x) => (float[2,3,2] y, float[2,3,2] m)
      <float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}> { m = MatMul(x, w) y = Add(b, m) }`;
    expect(await normalised(text)).toEqual(['MatMul', 'Add']);
  });
});

describe('old forms', () => {
  it('are raised to opset 20', async () => {
    const text = `g (float[2,3,8] x) => (float[2,3,1] y, float[2,3,8] z, float[2,3,4] l, float[1,2,3,8] u) {
      y = ReduceMax <axes = [-1]> (x) z = Softmax <axis = 1> (x) l, r = Split <axis = 2> (x) u = Unsqueeze <axes = [0]> (x) }`;
    const ops = await normalised(text, 11);
    expect(ops).toEqual(['ReduceMax', 'Flatten', 'Softmax', 'Shape', 'Reshape', 'Split', 'Unsqueeze']);
  });
});

describe('images resized in old forms', () => {
  const to = (name: string, text: string) =>
    `g (float[1,2,3,4] x) => (float[p,q,r,s] y) <float[4] f = {1, 1, ${text}}, float[0] none = {}, int64[4] n = {1, 2, 5, 7}> {
      y = ${name} }`;
  const old = '<coordinate_transformation_mode = "tf_half_pixel_for_nn">';
  it.each([
    [9, 'Upsample (x, f)', '2, 3', true],
    [9, 'Upsample <mode = "linear"> (x, f)', '2, 1.5', true],
    [10, 'Resize (x, f)', '2, 1.5', true],
    [10, 'Resize <mode = "linear"> (x, f)', '0.7, 2', true],
    // Rounded up where it shrinks, which no later form says.
    [10, 'Resize (x, f)', '0.7, 2', false],
    [11, 'Resize (x, none, f)', '2, 0.7', true],
    [11, 'Resize <mode = "linear"> (x, none, none, n)', '1, 1', true],
    [11, `Resize ${old} (x, none, f)`, '2, 3', false],
    [13, 'Resize (x, , f)', '2, 0.7', true],
  ])('opset %i: %s by %s', async (opset, call, scales, raised) => {
    const text = to(call, scales);
    expect(await normalised(text, opset)).toEqual(['Resize']);
    const model = parseModel(`<ir_version: 8, opset_import: ["": ${opset}]> ${text}`);
    runPasses(model, [raiseOpsetPass]);
    expect(model.opset('')).toBe(raised ? 20 : opset);
  });
});

describe('fused operators expand', () => {
  const head = 'float[2,3,8] x';
  it.each([
    [
      'SkipLayerNormalization',
      `g (${head}, float[2,3,8] k, float[8] s, float[8] c, float[8] e) => (float[2,3,8] y, float[2,3,8] t) {
        y, m, v, t = com.microsoft.SkipLayerNormalization <epsilon = 0.001> (x, k, s, c, e) z = Exp(x) }`,
    ],
    [
      'SkipSimplifiedLayerNormalization',
      `g (${head}, float[2,3,8] k, float[8] s) => (float[2,3,8] y) {
        y = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.001> (x, k, s) }`,
    ],
    [
      'EmbedLayerNormalization',
      `g (int32[2,3] ids, int32[2,3] types, float[3,8] w, float[5,8] p, float[3,8] t, float[8] s, float[8] c) => (float[2,3,8] y) {
        y, m = com.microsoft.EmbedLayerNormalization <epsilon = 0.001> (ids, types, w, p, t, s, c) }`,
    ],
    [
      'MultiHeadAttention',
      `g (float[2,3,8] q, float[2,5,8] k, float[2,5,8] v, float[24] c) => (float[2,3,8] y) {
        y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v, c) }`,
    ],
    [
      'Attention',
      `g (${head}, float[8,24] w, float[24] c) => (float[2,3,8] y) {
        y = com.microsoft.Attention <num_heads = 2, unidirectional = 1> (x, w, c) }`,
    ],
    [
      'SoftmaxCrossEntropyLoss',
      `g (float[4,3,2] x, int64[4,2] t, float[3] w) => (float l, float[4,3,2] p) {
        l, p = SoftmaxCrossEntropyLoss <ignore_index = 1> (x, t, w) }`,
    ],
    [
      'NegativeLogLikelihoodLoss',
      `g (float[4,3] x, int64[4] t) => (float l) { l = NegativeLogLikelihoodLoss <reduction = "sum"> (x, t) }`,
    ],
  ])('%s', async (op, text) => {
    expect(await normalised(text)).not.toContain(op);
  });

  it('Attention of opset 23, grouped and causal', async () => {
    const text = `g (float[2,4,3,8] q, float[2,2,3,8] k, float[2,2,3,8] v, float[3,3] m) => (float[2,4,3,8] y) {
      y = Attention <is_causal = 1, scale = 0.3> (q, k, v, m) }`;
    expect(await normalised(text, 23)).not.toContain('Attention');
  });
});
