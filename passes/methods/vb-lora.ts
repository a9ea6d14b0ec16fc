import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { DType } from '../../src/types.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { branchDropout } from './parts/low-rank.js';
import { narrowed, widened } from './parts/precision.js';
import {
  bankOf,
  indivisible,
  intoRank,
  type Mixture,
  outOfRank,
  peftOfSettings,
  pieceCounts,
  pieceSettings,
  settingsOfPeft,
} from './parts/vb-lora-matrices.js';
import vbLoraCompact, { compacted } from './vb-lora-compact.js';

const config = z
  .strictObject({
    ...pieceSettings,
    bankBound: z.number().min(0).default(0.02).describe('The bank starts uniform within ± this bound'),
    logitsStd: z.number().min(0).default(0.1).describe('Standard deviation of the initial logits'),
    learningRateRatio: z
      .number()
      .positive()
      .default(1)
      .describe('Learning rate of the logits over that of the bank; the paper takes 10'),
    dropout: branchDropout,
    compact: z
      .boolean()
      .default(false)
      .describe(
        'Save the chosen vectors and their weights in place of logits; training goes on with these vectors only',
      ),
  })
  .refine(({ topk, vectors }) => topk <= vectors, 'topk is larger than the bank');
type Config = z.output<typeof config>;

type Params = ParamValues<'bank' | 'logitsA' | 'logitsB'>;

/** The k largest logits of every piece as softmax weights. */
function chosen(op: Ops, logits: Value, topk: number, dtype: DType): Mixture {
  const [values, indices] = op.TopK(widened(op, logits, dtype), [topk]);
  return { indices, weights: narrowed(op, op.Softmax(values, { axis: -1 }), dtype) };
}

function factors(
  op: Ops,
  { bank, logitsA, logitsB }: Params,
  { rank, topk }: Config,
  site: LinearDims,
  dtype = site.dtype,
): readonly [Value, Value] {
  return [
    intoRank(op, bank, chosen(op, logitsA, topk, dtype), site, rank),
    outOfRank(op, bank, chosen(op, logitsB, topk, dtype), site, rank),
  ];
}

/**
 * VB-LoRA: `y' = y + x A B`, without alpha. A and B are cut into pieces of `vectorLength` entries, and every piece is
 * `Σ_k softmax(top k logits)_k·bank[index_k]` over a bank of vectors that all modules share. The bank and the logits
 * train, logits only where they are among the k largest. The bank starts uniform and the logits normal as in PEFT, so the
 * adapted model does not equal the base before training; the difference is of the order of the bank's entries squared.
 * The paper trains the bank at 1e-3 and the logits at 1e-2. With `compact` the saved adapter holds k places and k − 1 weights per piece.
 */
export default defineMethod({
  id: 'vb-lora',
  summary: 'Low-rank updates put together from a bank of vectors that all modules share',
  paper: { title: 'VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks', arxiv: '2405.15179' },
  config,
  learningRate: 5e-3,
  startsAsBase: false,
  shared: (_sites, { vectors, vectorLength, bankBound }) => ({
    bank: bankOf(vectors, vectorLength, bankBound),
  }),
  sites: {
    linear: {
      refuses: (site, { vectorLength }) => indivisible(site, vectorLength),
      params: (site, config) => {
        const { A, B } = pieceCounts(site, config);
        const logits = { init: normal(config.logitsStd), group: 'logits', lrScale: config.learningRateRatio };
        return {
          logitsA: { shape: [...A, config.vectors], key: 'vblora_logits_A', ...logits },
          logitsB: { shape: [...B, config.vectors], key: 'vblora_logits_B', ...logits },
        };
      },
      attach: (op, site, params, config, { dropout }) => {
        const [into, out] = factors(op, params, config, site);
        return { y: op.Add(site.y, op.MatMul(op.MatMul(dropout(site.x, config.dropout), into), out)) };
      },
      // Formulas of stored tensors are in float32 at least.
      fold: (op, { w }, params, config, site) => {
        const [into, out] = factors(op, params, config, site, 'float32');
        return { w: op.Add(w, op.MatMul(into, out)) };
      },
      collapse: {
        when: ({ compact }) => compact,
        method: vbLoraCompact,
        config: ({ rank, vectors, vectorLength, topk }) => ({ rank, vectors, vectorLength, topk }),
        values: (op, _stored, { bank, logitsA, logitsB }, { topk }) => ({
          bank,
          ...compacted(op, 'A', chosen(op, logitsA, topk, 'float32'), topk),
          ...compacted(op, 'B', chosen(op, logitsB, topk, 'float32'), topk),
        }),
      },
    },
  },
  peft: {
    types: ['VBLORA'],
    when: (config) => config.save_only_topk_weights !== true,
    tensors: {
      linear: { logitsA: { key: 'vblora_logits_A' }, logitsB: { key: 'vblora_logits_B' } },
    },
    shared: { bank: { key: 'vblora_vector_bank' } },
    settings: (config) => ({
      ...settingsOfPeft(config),
      dropout: numberOf(config, 'vblora_dropout', 0),
    }),
    config: (config) => ({ ...peftOfSettings(config), save_only_topk_weights: false }),
  },
});
