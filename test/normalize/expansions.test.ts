/** Every form of the fused ops that ONNX Runtime's kernels for CPUs take, against these kernels. */
import { describe, expect, it } from 'vitest';
import { type Case, compare, type Input, refusal } from './expansions.js';

const domain = 'com.microsoft';
const ints = (dims: readonly number[], data: readonly number[]): Input => ({ dims, dtype: 'int32', data });
const long = (dims: readonly number[], data: readonly number[]): Input => ({ dims, dtype: 'int64', data });
const bool = (dims: readonly number[], data: readonly number[]): Input => ({ dims, dtype: 'bool', data });

/** Two rows of four tokens, six columns, two heads of four; the second row ends after three. */
const lengths = ints([2], [4, 3]);
const rows = ints([2, 4], [1, 1, 1, 1, 1, 1, 1, 0]);
const square = ints(
  [2, 4, 4],
  Array.from({ length: 32 }, (_, i) => (i % 5 === 3 ? 0 : 1)),
);

const packed = (inputs: readonly (Input | null)[], attributes = {}, more: Partial<Case> = {}): Case => ({
  op: 'Attention',
  domain,
  attributes: { num_heads: 2, ...attributes },
  inputs: [[2, 4, 6], [6, 24], ...inputs],
  ...more,
});
const multi = (inputs: readonly (Input | null)[], attributes = {}, more: Partial<Case> = {}): Case => ({
  op: 'MultiHeadAttention',
  domain,
  attributes: { num_heads: 2, ...attributes },
  inputs,
  ...more,
});
const qkv: readonly Input[] = [
  [2, 4, 8],
  [2, 5, 8],
  [2, 5, 12],
];
const grouped = (inputs: readonly (Input | null)[], attributes = {}, more: Partial<Case> = {}): Case => ({
  op: 'GroupQueryAttention',
  domain,
  attributes: { num_heads: 4, kv_num_heads: 2, ...attributes },
  inputs,
  ...more,
});
const angles: readonly Input[] = [
  { dims: [12, 8], angles: 'cos' },
  { dims: [12, 8], angles: 'sin' },
];
/** Rows of five and three tokens, padded to five: no past. */
const prompt: readonly (Input | null)[] = [
  [2, 5, 64],
  [2, 5, 32],
  [2, 5, 32],
  null,
  null,
  ints([2], [4, 2]),
  ints([], [5]),
];
const tokens = [5, 3];
/** Two tokens after a past of three; the kernel takes one row of several tokens. */
const later: readonly (Input | null)[] = [
  [1, 2, 64],
  [1, 2, 32],
  [1, 2, 32],
  [1, 2, 3, 16],
  [1, 2, 3, 16],
  ints([1], [4]),
  ints([], [5]),
];
/** One token after pasts of three and two. */
const uneven: readonly (Input | null)[] = [
  [2, 1, 64],
  [2, 1, 32],
  [2, 1, 32],
  [2, 2, 3, 16],
  [2, 2, 3, 16],
  ints([2], [3, 2]),
  ints([], [4]),
];
const standard = (inputs: readonly (Input | null)[], attributes = {}, more: Partial<Case> = {}): Case => ({
  op: 'Attention',
  attributes,
  inputs,
  opset: 23,
  ...more,
});
const heads: readonly Input[] = [
  [2, 4, 3, 4],
  [2, 2, 5, 4],
  [2, 2, 5, 6],
];

const CASES: Readonly<Record<string, Readonly<Record<string, Case>>>> = {
  'com.microsoft.Attention': {
    'with a bias': packed([[24]]),
    // Without a bias ONNX Runtime 1.30's kernel for CPUs ends the process.
    'with a scale': packed([[24]], { scale: 0.3 }),
    causal: packed([[24]], { unidirectional: 1 }),
    'with lengths': packed([[24], lengths]),
    'with starts and ends': packed([[24], ints([4], [4, 3, 0, 1])]),
    'with a row mask': packed([[24], rows], { mask_filter_value: -20 }),
    'with a square mask, causal': packed([[24], square], { unidirectional: 1 }),
    'with a past': packed([[24], null, [2, 2, 2, 3, 4]], { unidirectional: 1 }, { outputs: [true, true] }),
    'with a past and a mask': packed(
      [[24], ints([2, 7], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]), [2, 2, 2, 3, 4]],
      {},
      { outputs: [true, true] },
    ),
    'with an additive mask': packed([[24], null, null, [2, 2, 4, 4]]),
    'with values of their own width': packed([[24]], { qkv_hidden_sizes: [8, 8, 8] }),
    'with wider values': packed(
      [[28]],
      { qkv_hidden_sizes: [8, 8, 12] },
      { inputs: [[2, 4, 6], [6, 28], [28]] },
    ),
    'of unknown sizes': packed(
      [[24], rows],
      { unidirectional: 1 },
      { symbolic: { 2: 'batch', 4: 'tokens' } },
    ),
  },
  'com.microsoft.MultiHeadAttention': {
    'across sequences': multi(qkv),
    'with a bias': multi([...qkv, [28]]),
    'with lengths': multi([...qkv, null, ints([2], [5, 2])]),
    'with a row mask': multi([...qkv, [28], ints([2, 5], [1, 1, 1, 1, 0, 1, 0, 1, 1, 0])], { scale: 0.4 }),
    'with an additive mask': multi([...qkv, null, null, [1, 2, 4, 5]]),
    'causal, with a past': multi(
      [[2, 2, 8], [2, 2, 8], [2, 2, 8], null, null, null, [2, 2, 3, 4], [2, 2, 3, 4]],
      { unidirectional: 1 },
      { outputs: [true, true, true] },
    ),
    'with keys whose heads are apart': multi([
      [2, 4, 8],
      [2, 2, 5, 4],
      [2, 2, 5, 4],
    ]),
    'of unknown sizes': multi([...qkv, [28]], {}, { symbolic: { 2: 'batch', 5: 'keys' } }),
  },
  'com.microsoft.GroupQueryAttention': {
    'of a prompt': grouped(prompt, {}, { tokens }),
    packed: grouped([[2, 5, 128], null, null, null, null, ...prompt.slice(5)], { scale: 0.2 }, { tokens }),
    rotated: grouped([...prompt, ...angles], { do_rotary: 1 }, { tokens }),
    'rotated in neighbouring pairs': grouped(
      [...prompt, ...angles],
      { do_rotary: 1, rotary_interleaved: 1 },
      { tokens },
    ),
    'rotated in part': grouped(
      [[2, 5, 64], [2, 5, 64], [2, 5, 64], null, null, ...prompt.slice(5), ...angles],
      { num_heads: 2, kv_num_heads: 2, do_rotary: 1 },
      { tokens },
    ),
    'rotated from positions': grouped(
      [...prompt, ...angles, long([2, 5], [3, 4, 5, 6, 7, 1, 2, 3, 4, 5])],
      { do_rotary: 1 },
      { tokens },
    ),
    'in a window, capped': grouped(prompt, { local_window_size: 2, softcap: 1.5 }, { tokens }),
    'with a share for nothing': grouped(prompt, { smooth_softmax: 1 }, { tokens }),
    'with sinks': grouped([...prompt, null, null, null, null, [4]], {}, { tokens }),
    'with an additive mask': grouped([...prompt, null, null, null, [1, 4, 5, 5]], { softcap: 2 }, { tokens }),
    'after a past': grouped([...later, ...angles], { do_rotary: 1 }, { outputs: [true, true, true] }),
    // Without presents the kernel forgets the past; behind the tokens of a row it leaves what was in memory.
    'after pasts of two lengths, in a window': grouped(
      [...uneven, ...angles],
      { do_rotary: 1, local_window_size: 2 },
      { outputs: [true, true, true], compared: 1 },
    ),
    'of unknown sizes': grouped(
      [...prompt, ...angles],
      { do_rotary: 1 },
      { tokens, symbolic: { 5: 'tokens' } },
    ),
    'after a past of unknown sizes': grouped(
      [...later, ...angles],
      { do_rotary: 1 },
      { outputs: [true, true, true], symbolic: { 3: 'past' } },
    ),
  },
  Attention: {
    'of grouped heads': standard(heads),
    causal: standard(heads, { is_causal: 1, scale: 0.3 }),
    'with a mask of booleans': standard([
      ...heads,
      bool([3, 5], [1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1]),
    ]),
    'with a mask of numbers, capped': standard([...heads, [2, 1, 3, 5]], { softcap: 1.2 }),
    'with heads side by side': standard(
      [
        [2, 3, 8],
        [2, 5, 4],
        [2, 5, 4],
      ],
      { q_num_heads: 2, kv_num_heads: 1 },
    ),
    'after a past, causal': standard(
      [...heads, null, [2, 2, 2, 4], [2, 2, 2, 6]],
      { is_causal: 1 },
      { outputs: [true, true, true] },
    ),
    'of unknown sizes': standard(heads, { is_causal: 1 }, { symbolic: { 3: 'tokens', 5: 'keys' } }),
  },
  normalisations: {
    SkipLayerNormalization: {
      op: 'SkipLayerNormalization',
      domain,
      inputs: [[2, 3, 8], [2, 3, 8], [8], [8], [8]],
      outputs: [true, false, false, true],
    },
    'SkipLayerNormalization of one skip for all rows': {
      op: 'SkipLayerNormalization',
      domain,
      attributes: { epsilon: 1e-3 },
      inputs: [[2, 3, 8], [1, 3, 8], [8]],
    },
    'SkipLayerNormalization before LayerNormalization': {
      op: 'SkipLayerNormalization',
      domain,
      attributes: { epsilon: 1e-5 },
      inputs: [[2, 3, 8], [2, 3, 8], [8], [8]],
      opset: 14,
    },
    SkipSimplifiedLayerNormalization: {
      op: 'SkipSimplifiedLayerNormalization',
      domain,
      attributes: { epsilon: 1e-5 },
      inputs: [[2, 3, 8], [2, 3, 8], [8], [8]],
      outputs: [true, false, false, true],
    },
    EmbedLayerNormalization: {
      op: 'EmbedLayerNormalization',
      domain,
      attributes: { epsilon: 1e-5 },
      inputs: [
        ints([2, 3], [1, 4, 0, 2, 2, 3]),
        ints([2, 3], [0, 0, 1, 0, 1, 1]),
        [5, 8],
        [6, 8],
        [2, 8],
        [8],
        [8],
        ints([2, 3], [1, 1, 1, 1, 1, 0]),
      ],
      outputs: [true, true, true],
    },
    'EmbedLayerNormalization with positions, without segments': {
      op: 'EmbedLayerNormalization',
      domain,
      attributes: { epsilon: 1e-5 },
      inputs: [
        ints([2, 3], [1, 4, 0, 2, 2, 3]),
        null,
        [5, 8],
        [6, 8],
        null,
        [8],
        [8],
        null,
        ints([2, 3], [5, 1, 0, 2, 2, 3]),
      ],
      outputs: [true, true],
    },
  },
  products: {
    FusedGemm: {
      op: 'FusedGemm',
      domain,
      kinked: true,
      attributes: { activation: 'LeakyRelu', activation_alpha: 0.2, transB: 1, alpha: 0.5 },
      inputs: [[3, 4], [5, 4], [5]],
    },
    'FusedGemm with a smooth activation': {
      op: 'FusedGemm',
      domain,
      attributes: { activation: 'Tanh' },
      inputs: [[3, 4], [4, 5], [5]],
    },
    FusedConv: {
      op: 'FusedConv',
      domain,
      kinked: true,
      attributes: { activation: 'Relu', kernel_shape: [3, 3], pads: [1, 1, 1, 1] },
      inputs: [[1, 2, 4, 4], [3, 2, 3, 3], [3]],
    },
  },
};

for (const [family, cases] of Object.entries(CASES))
  describe(family, () => {
    for (const [name, test] of Object.entries(cases))
      it(name, async () => {
        const { ops, forward, backward } = await compare(`${family} ${name}`, test);
        expect(ops).not.toContain(test.domain === undefined ? test.op : `${test.domain}.${test.op}`);
        // A few dozen roundings of float32, in another order.
        expect(forward).toBeLessThanOrEqual(64 * 2 ** -24);
        expect(backward).toBeLessThanOrEqual(2e-3);
      });
  });

describe('forms that are not expanded say why', () => {
  it.each<readonly [string, string, Case]>([
    ['a shared buffer', 'a past in a buffer', packed([[24], null, [2, 2, 2, 3, 4], null, ints([1], [2])])],
    ['a rotation of its own', 'do_rotary', packed([[24]], { do_rotary: 1 })],
    ['a mask of four axes', '4 axes', packed([[24], ints([2, 1, 4, 4], new Array(32).fill(1))])],
    [
      'a mask of another length',
      'neither a length per row',
      packed([[24], ints([7], [4, 3, 0, 1, 5, 0, 1])]),
    ],
    ['scores that are read', 'scores are read', standard(heads, {}, { outputs: [true, false, false, true] })],
    [
      'a window of the past',
      'sliding_window_cache',
      grouped(later, { sliding_window_cache: 1, local_window_size: 2 }),
    ],
    ['decoding', 'decodes one token', { op: 'DecoderMaskedMultiHeadAttention', domain, inputs: [[2, 1, 8]] }],
  ])('%s', (_name, reason, test) => {
    expect(refusal(test)).toContain(reason);
  });
});
