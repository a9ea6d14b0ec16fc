import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { constant, type Random } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { type DerivedInit, derived } from './contract/derived.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import {
  bankOf,
  indivisible,
  intoRank,
  type Mixture,
  outOfRank,
  type Pieces,
  peftOfSettings,
  pieceCounts,
  pieceSettings,
  settingsOfPeft,
} from './parts/vb-lora-matrices.js';

const config = z.strictObject(pieceSettings);
type Config = z.output<typeof config>;

interface Own {
  readonly indicesA: Value;
  readonly indicesB: Value;
  /** Absent where pieces are single vectors. */
  readonly weightsA?: Value;
  readonly weightsB?: Value;
}
type Stored = Own & ParamValues<'bank'>;

/** Random places, for banks of one's own making. */
function places(count: number, vectors: number): DerivedInit {
  const draw = (random: Random) => Array.from({ length: count }, () => Math.floor(random() * vectors));
  return derived((op, _stored, random) => op.Constant({ value_ints: draw(random) }));
}

/** Pieces of one factor: k places each, and all weights but the last. */
function factor(name: 'A' | 'B', pieces: readonly [number, number], { topk, vectors }: Config) {
  const key = `vblora_logits_${name}_topk`;
  const indices: ParamSpec = {
    shape: [...pieces, topk],
    init: places(pieces[0] * pieces[1] * topk, vectors),
    dtype: 'int64',
    trainable: false,
    key: `${key}_indices`,
  };
  const weights: ParamSpec = {
    shape: [...pieces, topk - 1],
    init: constant(1 / topk),
    group: 'weights',
    key: `${key}_weights`,
  };
  return { indices, weights: topk > 1 ? weights : undefined };
}

/** The last weight is what the others leave of 1. */
function mixture(op: Ops, bank: Value, indices: Value, weights: Value | undefined): Mixture {
  if (weights === undefined) return { indices, weights: op.CastLike(op.Greater(indices, -1), bank) };
  const rest = op.Sub(1, op.ReduceSum(weights, [2], { keepdims: 1 }));
  return { indices, weights: op.Concat([weights, rest], { axis: 2 }) };
}

function factors(op: Ops, params: Stored, { rank }: Pieces, site: LinearDims): readonly [Value, Value] {
  const { bank, indicesA, indicesB, weightsA, weightsB } = params;
  return [
    intoRank(op, bank, mixture(op, bank, indicesA, weightsA), site, rank),
    outOfRank(op, bank, mixture(op, bank, indicesB, weightsB), site, rank),
  ];
}

/**
 * VB-LoRA as it is stored: `W' = W + A B` whose pieces are `Σ_k weight_k·bank[index_k]`, with k places and k − 1 weights
 * per piece in place of logits over the whole bank. The last weight is one minus the others.
 */
export default defineMethod({
  id: 'vb-lora-compact',
  summary: 'VB-LoRA with the chosen vectors and their weights in place of logits',
  paper: { title: 'VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks', arxiv: '2405.15179' },
  config,
  startsAsBase: false,
  internal: 'it is what vb-lora with compact: true saves',
  shared: (_sites, { vectors, vectorLength }): ParamSpecs<'bank'> => ({
    bank: bankOf(vectors, vectorLength),
  }),
  sites: {
    linear: {
      refuses: (site, { vectorLength }) => indivisible(site, vectorLength),
      params: (site, config): ParamSpecs<keyof Own> => {
        const pieces = pieceCounts(site, config);
        const A = factor('A', pieces.A, config);
        const B = factor('B', pieces.B, config);
        return {
          indicesA: A.indices,
          indicesB: B.indices,
          ...(A.weights === undefined ? {} : { weightsA: A.weights }),
          ...(B.weights === undefined ? {} : { weightsB: B.weights }),
        } as ParamSpecs<keyof Own>;
      },
      attach: (op, site, params: Stored, config) => {
        const [into, out] = factors(op, params, config, site);
        return { y: op.Add(site.y, op.MatMul(op.MatMul(site.x, into), out)) };
      },
      fold: (op, { w }, params: Stored, config, site) => {
        const [into, out] = factors(op, params, config, site);
        return { w: op.Add(w, op.MatMul(into, out)) };
      },
    },
  },
  peft: {
    types: ['VBLORA'],
    when: (config) => config.save_only_topk_weights === true,
    tensors: {
      linear: {
        indicesA: { key: 'vblora_logits_A_topk_indices' },
        indicesB: { key: 'vblora_logits_B_topk_indices' },
        weightsA: { key: 'vblora_logits_A_topk_weights' },
        weightsB: { key: 'vblora_logits_B_topk_weights' },
      },
    },
    shared: { bank: { key: 'vblora_vector_bank' } },
    settings: settingsOfPeft,
    config: (config) => ({ ...peftOfSettings(config), save_only_topk_weights: true }),
  },
});

/** Values of this method's parameters for one factor, of weights and places [..., k]. */
export function compacted(
  op: Ops,
  name: 'A' | 'B',
  { indices, weights }: Mixture,
  topk: number,
): ParamValues {
  return {
    [`indices${name}`]: indices,
    ...(topk > 1 ? { [`weights${name}`]: op.Slice(weights, [0], [topk - 1], [2]) } : {}),
  };
}
