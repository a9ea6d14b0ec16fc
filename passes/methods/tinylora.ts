import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { isSet, numberOf, type PeftModule } from './contract/peft-format.js';
import { ofFiles } from './parts/on-weights.js';
import { groupedVectors, sharedVectors } from './parts/tinylora-vectors.js';

const config = z.strictObject({
  rank: z.int().min(1).default(2).describe('Singular triplets of the weight that the update is made of'),
  length: z.int().min(1).default(64).describe('Numbers that are trained, which modules may share'),
  tying: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe('How many modules share a vector: 0 for none, 1 for all'),
  seed: z.int().min(0).default(42).describe('Seed of the random matrices of the first module'),
});

/** Frozen factors, [left, r] and [r, right], and the vector between them. */
function paramsOf(
  A: readonly number[],
  B: readonly number[],
  { rank, length }: z.output<typeof config>,
): ParamSpecs<'A' | 'B' | 'P' | 'v'> {
  const frozen = { init: normal(1), trainable: false };
  return {
    A: { ...frozen, shape: A, key: 'tinylora_A' },
    B: { ...frozen, shape: B, key: 'tinylora_B' },
    P: { ...frozen, shape: [length, rank, rank], key: 'tinylora_P' },
    v: { shape: [length], init: zeros, key: 'tinylora_v' },
  };
}

/** R = Σ_i v_i P_i, [r, r]. */
function between(
  op: Ops,
  { P, v }: ParamValues<'P' | 'v'>,
  { rank, length }: z.output<typeof config>,
): Value {
  const flat = op.Reshape(P, [length, rank * rank]);
  return op.Reshape(op.MatMul(op.Reshape(v, [1, length]), flat), [rank, rank]);
}

/** What stands beside a vector: [in, r] Rᵀ [r, out]. */
function turned(op: Ops, params: ParamValues<'P' | 'v'>, settings: z.output<typeof config>): Value {
  return op.Transpose(between(op, params, settings), { perm: [1, 0] });
}

/**
 * TinyLoRA: `W' = W + A Rᵀ B` with `R = Σ_i v_i P_i`; A and B are the leading singular vectors of W, each times the roots
 * of the values, and P random. The vector v alone is trained, and modules may share it.
 */
export default defineMethod({
  id: 'tinylora',
  summary: 'A short vector that mixes singular triplets of the weight',
  paper: { title: 'Learning to Reason in 13 Parameters', arxiv: '2602.04118' },
  config,
  internal: ofFiles('TINYLORA'),
  sites: {
    linear: {
      params: ({ inDim, outDim }, settings) =>
        paramsOf([inDim, settings.rank], [settings.rank, outDim], settings),
      attach: (op, { x, y }, params, settings) => {
        const inner = op.MatMul(op.MatMul(x, params.A), turned(op, params, settings));
        return { y: op.Add(y, op.MatMul(inner, params.B)) };
      },
      fold: (op, { w }, params, settings) => ({
        w: op.Add(w, op.MatMul(op.MatMul(params.A, turned(op, params, settings)), params.B)),
      }),
    },
    embedding: {
      params: ({ vocab, dim }, settings) => paramsOf([settings.rank, dim], [vocab, settings.rank], settings),
      attach: (op, { ids, y }, params, settings) => {
        const inner = op.MatMul(op.Gather(params.B, ids), between(op, params, settings));
        return { y: op.Add(y, op.MatMul(inner, params.A)) };
      },
      fold: (op, { w }, params, settings) => ({
        w: op.Add(w, op.MatMul(op.MatMul(params.B, between(op, params, settings)), params.A)),
      }),
    },
  },
  peft: {
    types: ['TINYLORA'],
    refuses: (fields) =>
      isSet(fields, 'save_projection')
        ? undefined
        : 'its file lacks the random matrices that say which of its vectors is whose; save it with save_projection=True',
    rearranged: sharedVectors,
    restored: groupedVectors,
    tensors: {
      linear: {
        A: { key: 'tinylora_A', transposed: true },
        B: { key: 'tinylora_B', transposed: true },
        P: { key: 'tinylora_P' },
        v: { key: 'tinylora_v' },
      },
      embedding: {
        A: { key: 'tinylora_A' },
        B: { key: 'tinylora_B' },
        P: { key: 'tinylora_P' },
        v: { key: 'tinylora_v' },
      },
    },
    settings: (fields, module?: PeftModule) => ({
      rank: module?.shapes.get('tinylora_A')?.[0] ?? numberOf(fields, 'r', 2),
      length: module?.shapes.get('tinylora_v')?.[0] ?? numberOf(fields, 'u', 64),
      tying: numberOf(fields, 'weight_tying', 0),
      seed: numberOf(fields, 'projection_seed', 42),
    }),
    // Small modules have fewer triplets than the rank that was asked for.
    config: ({ length, tying, seed }, modules) => ({
      r: Math.max(...modules.map(({ settings }) => Number(settings.rank))),
      u: length,
      weight_tying: tying,
      projection_seed: seed,
      save_projection: true,
    }),
  },
});
