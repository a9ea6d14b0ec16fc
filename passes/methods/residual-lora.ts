import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { ones, uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { derived, type HostArray } from './contract/derived.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { once } from './parts/linear-algebra/once.js';
import { truncatedSvd } from './parts/linear-algebra/truncated-svd.js';
import { residualFormat } from './parts/lora-peft.js';
import { branchDropout, rankAndAlpha, rslora, scaling } from './parts/low-rank.js';
import { ofFiles } from './parts/on-weights.js';
import { leadingRows } from './parts/orthonormal.js';

const config = z.strictObject({
  ...rankAndAlpha,
  rslora,
  dropout: branchDropout,
  start: z
    .enum(['pissa', 'olora'])
    .default('pissa')
    .describe(
      'What A and B started as, and the base lost: leading singular triplets, or rows of a QR decomposition',
    ),
  dora: z.boolean().default(false).describe('Magnitudes of the columns are trained apart'),
});
type Start = z.output<typeof config>['start'];

/** What the base lost as a product of [in, r] and [r, out]. */
interface Lost {
  readonly left: Float64Array;
  readonly right: Float64Array;
}

const LOST: Readonly<Record<Start, (w: HostArray, rank: number) => Lost>> = {
  pissa: (w, rank) => {
    const { left, values, right } = truncatedSvd(w, rank);
    return { left: left.map((entry, i) => entry * (values[i % rank] as number)), right };
  },
  olora: leadingRows,
};

/** Both factors of a module come from one decomposition. */
const decompositions = {
  pissa: once(LOST.pissa),
  olora: once(LOST.olora),
};

function lost(start: Start, rank: number, side: keyof Lost): ReturnType<typeof derived> {
  return derived(
    (_op, { w }) => w,
    (w) => decompositions[start](w, rank)[side],
  );
}

type Config = z.output<typeof config>;
type Factors = ParamValues<'A' | 'B' | 'left' | 'right'> & { readonly m?: Value };

/** W' = (W − A₀ B₀) + s·A B, or that with columns of lengths m. */
function folded(op: Ops, w: Value, { A, B, left, right, m }: Factors, settings: Config): Value {
  const update = op.Mul(op.MatMul(A, B), scaling(settings));
  const sum = op.Add(w, op.Sub(update, op.Mul(op.MatMul(left, right), taken(settings))));
  if (m === undefined) return sum;
  return op.Mul(sum, op.Div(m, op.ReduceL2(sum, [0], { keepdims: 0 })));
}

/**
 * LoRA over the residual of its base: A and B started as a part of W that was taken out of it,
 * `W' = (W − A₀ B₀) + s·A B`. PiSSA: A₀ B₀ are the leading r singular triplets of W. OLoRA: with `Wᵀ = Q R`,
 * `s·A₀ B₀ = s·(Q_r R_r)ᵀ`. A₀ and B₀ are computed from the base again, as PEFT does. With `dora` the columns of W' have
 * the lengths m.
 */
export default defineMethod({
  id: 'residual-lora',
  summary: 'LoRA whose factors started as a part of the weight',
  paper: {
    title: 'PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models',
    arxiv: '2404.02948',
  },
  config,
  internal: ofFiles('LORA with init_lora_weights pissa or olora'),
  startsAsBase: false,
  sites: {
    linear: {
      refuses: ({ inDim, outDim }, { rank }) =>
        rank <= Math.min(inDim, outDim)
          ? undefined
          : `a ${inDim} × ${outDim} weight has no part of rank ${rank} that could have been taken out`,
      params: ({ inDim, outDim }, { rank, start, dora }): ParamSpecs<keyof Factors> =>
        ({
          A: { shape: [inDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'lora_A' },
          B: { shape: [rank, outDim], init: zeros, key: 'lora_B' },
          left: {
            shape: [inDim, rank],
            init: lost(start, rank, 'left'),
            trainable: false,
            key: 'residual_A',
          },
          right: {
            shape: [rank, outDim],
            init: lost(start, rank, 'right'),
            trainable: false,
            key: 'residual_B',
          },
          ...(dora ? { m: { shape: [outDim], init: ones, key: 'lora_magnitude_vector' } } : {}),
        }) as ParamSpecs<keyof Factors>,
      attach: (op, { x, y, w }, factors: Factors, settings, { dropout }) => {
        if (settings.dora) return { w: folded(op, w, factors, settings) };
        const { A, B, left, right } = factors;
        const branch = op.MatMul(op.Mul(op.MatMul(dropout(x, settings.dropout), A), scaling(settings)), B);
        return {
          y: op.Add(y, op.Sub(branch, op.MatMul(op.Mul(op.MatMul(x, left), taken(settings)), right))),
        };
      },
      fold: (op, { w }, factors: Factors, settings) => ({ w: folded(op, w, factors, settings) }),
    },
  },
  peft: residualFormat,
});

/** PiSSA divides its factors by s; OLoRA does not. */
function taken(settings: Config): number {
  return settings.start === 'pissa' ? 1 : scaling(settings);
}
