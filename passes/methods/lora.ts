import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { normal, uniform, zeros } from '../../src/initializer.js';
import type { LinearDims } from '../sites/views.js';
import { baseValue } from './contract/derived.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import { type GateRole, gateOf, gateParams, withoutTokens } from './parts/gate.js';
import { loraFormat } from './parts/lora-peft.js';
import { scaling as alphaOverRank, branchDropout, rankAndAlpha, rslora } from './parts/low-rank.js';

const config = z.strictObject({
  ...rankAndAlpha,
  rslora,
  dropout: branchDropout,
  bias: z
    .enum(['none', 'lora_only'])
    .default('none')
    .describe('Whether biases of the targeted linear modules train too'),
  loraBias: z.boolean().default(false).describe('A trained bias behind B; folds where the module has a bias'),
  learningRateRatio: z
    .number()
    .positive()
    .default(1)
    .describe(
      'Learning rate of B over that of A in linear modules; LoRA+ (arXiv 2402.12354) recommends about 16',
    ),
  gating: z
    .boolean()
    .default(false)
    .describe(
      'Multiply the branch by a learned gate per example instead of s (UniPELT, arXiv 2110.07577), which does not fold',
    ),
});
type Config = z.output<typeof config>;

/** s, whose place the gate takes. */
function scaling(config: Config): number {
  return config.gating ? 1 : alphaOverRank(config);
}

/** What a linear module gets; some only where the settings ask for them. */
type Factors = ParamValues<'A' | 'B' | GateRole> & {
  /** The base's bias, trained. */
  readonly bias?: Value;
  /** Bias of B. */
  readonly shift?: Value;
};

function linearParams(
  { inDim, outDim, bias: hasBias }: LinearDims,
  { rank, gating, bias, loraBias, learningRateRatio: lrScale }: Config,
): ParamSpecs<keyof Factors> {
  const A: ParamSpec = { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' };
  const B: ParamSpec = { shape: [rank, outDim], init: zeros, key: 'lora_B', lrScale };
  const trained: ParamSpec = { shape: [outDim], init: baseValue('b'), key: 'base_layer.bias' };
  const shift: ParamSpec = { shape: [outDim], init: zeros, key: 'lora_B.bias', lrScale };
  return {
    A,
    B,
    ...(bias === 'lora_only' && hasBias ? { bias: trained } : ({} as { bias: ParamSpec })),
    ...(loraBias ? { shift } : ({} as { shift: ParamSpec })),
    ...gateParams(inDim, gating, 'lora_gate'),
  };
}

/** Why a linear module cannot fold; undefined where it can. */
function unfoldable({ gating }: Config, b: Value | undefined, { shift }: Factors): string | undefined {
  if (gating) return 'its gate depends on the input, which no weight does; train without gating to fold';
  if (shift !== undefined && b === undefined)
    return 'the module has no bias that the bias of B could go into; train with loraBias: false to fold';
  return undefined;
}

/**
 * Low-rank adaptation. Linear: `y' = y + s·(x A) B`; embedding: `y' = y + s·A[ids] B`. One factor starts at zero, so the
 * adapted model equals the base before training. Initial values as in PEFT: Kaiming-uniform A (bound 1/√in) and zero B,
 * zero A and N(0, 1) B for embeddings. rsLoRA is another s, LoRA+ another learning rate of B. With `gating`,
 * `y' = y + g(x)·(x A) B`, one gate per example: that does not fold.
 */
export default defineMethod({
  id: 'lora',
  summary: 'Low-rank update of linear and embedding weights',
  paper: { title: 'LoRA: Low-Rank Adaptation of Large Language Models', arxiv: '2106.09685' },
  config,
  sites: {
    linear: {
      refuses: ({ rank }, { gating }) => (gating ? withoutTokens(rank) : undefined),
      params: linearParams,
      attach(op, { x, y, path }, { A, B, bias, shift, ...gate }: Factors, config, { dropout }) {
        // The factor sits on [..., rank], the smallest tensor of the branch.
        const factor = config.gating ? gateOf(op, x, gate, path) : scaling(config);
        const inner = op.MatMul(dropout(x, config.dropout), A);
        const branch = op.MatMul(factor === 1 ? inner : op.Mul(inner, factor), B);
        const sum = op.Add(y, branch);
        return {
          y: shift === undefined ? sum : op.Add(sum, op.Mul(shift, factor)),
          ...(bias === undefined ? {} : { b: bias }),
        };
      },
      byRow: {
        params: { A: 'stacked', B: 'stacked', shift: 'vector', gate: 'stacked', gateBias: 'vector' },
      },
      fold(op, { w, b }, factors: Factors, config) {
        const reason = unfoldable(config, b, factors);
        if (reason !== undefined) return { impossible: reason };
        const { A, B, bias = b, shift } = factors;
        const s = scaling(config);
        return {
          w: op.Add(w, op.MatMul(op.Mul(A, s), B)),
          ...(bias === undefined ? {} : { b: shift === undefined ? bias : op.Add(bias, op.Mul(shift, s)) }),
        };
      },
    },
    embedding: {
      refuses: (_site, { gating }) =>
        gating ? 'an embedding has no input that a gate could read' : undefined,
      params: ({ vocab, dim }, { rank }) => ({
        A: { shape: [vocab, rank], init: zeros, key: 'lora_embedding_A' },
        B: { shape: [rank, dim], init: normal(1), key: 'lora_embedding_B' },
      }),
      attach: (op, { ids, y }, { A, B }, config) => ({
        y: op.Add(y, op.MatMul(op.Mul(op.Gather(A, ids), scaling(config)), B)),
      }),
      byRow: { params: { A: 'table', B: 'stacked' } },
      fold: (op, { w }, { A, B }, config) => ({
        w: op.Add(w, op.MatMul(op.Mul(A, scaling(config)), B)),
      }),
    },
  },
  peft: loraFormat,
  weighted: {
    by: 'factors',
    left: 'A',
    right: 'B',
    scaled: ['shift'],
    scale: (settings) => scaling(config.parse(settings)),
    unscaled: (settings, rank) => ({ ...settings, rank, alpha: rank, rslora: false }),
  },
});
