import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { constant, ones, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { isSet } from './contract/peft-format.js';
import { basesByCategory, sharedBases } from './parts/frod-bases.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  count: z.int().min(0).default(0).describe('Numbers beside the diagonal'),
});

/** Columns shorter than this are zero, as in PEFT. */
const SHORTEST = 1e-12;

type Roles = 'basis' | 'inverse' | 'gains' | 'values' | 'places';

/** U [in, out], the rows of V⁻¹ W with length one. */
function units(op: Ops, w: Value, inverse: Value): Value {
  const rows = op.MatMul(inverse, w);
  const lengths = op.ReduceL2(rows, [1], { keepdims: 1 });
  const kept = op.CastLike(op.Greater(lengths, SHORTEST), w);
  return op.Div(op.Mul(rows, kept), op.Max([lengths, SHORTEST]));
}

/** Sᵀ [in, in]: values at (column, row). */
function sparse(op: Ops, { values, places }: ParamValues<Roles>, inDim: number): Value {
  const rows = op.Slice(places, [1], [2], [0]);
  const columns = op.Slice(places, [0], [1], [0]);
  const at = op.Transpose(op.Concat([rows, columns], { axis: 0 }), { perm: [1, 0] });
  return op.ScatterND(op.CastLike(op.ConstantOfShape([inDim, inDim]), values), at, values);
}

/**
 * FRoD: `W' = V (diag(g) + Sᵀ) U`, V a basis that modules of one role share, U the rows of `V⁻¹ W` with length one, g and
 * the few numbers of S trained. With g the lengths of those rows and no S that is W.
 */
export default defineMethod({
  id: 'frod',
  summary: 'The weight in a basis that layers share, with trained gains and few trained entries',
  paper: { title: 'FRoD: Full-Rank Efficient Fine-Tuning with Rotational Degrees', arxiv: '2512.23485' },
  config,
  internal: ofFiles('FROD'),
  startsAsBase: false,
  sites: {
    linear: onWeights(
      ({ inDim }, { count }: z.output<typeof config>): ParamSpecs<Roles> => ({
        basis: { shape: [inDim, inDim], init: constant(1), trainable: false, key: 'frod_V' },
        inverse: { shape: [inDim, inDim], init: constant(1), trainable: false, key: 'frod_inverse' },
        gains: { shape: [inDim], init: ones, key: 'frod_lambda_l' },
        values: { shape: [count], init: zeros, key: 'frod_lambda_s_values' },
        places: {
          shape: [2, count],
          init: constant(0),
          dtype: 'int64',
          trainable: false,
          key: 'frod_s_indices',
        },
      }),
      (op, { w }, params, { count }, { inDim }) => {
        const { basis, inverse, gains } = params;
        const U = units(op, w, inverse);
        const scaled = op.Mul(U, op.Reshape(gains, [inDim, 1]));
        const inside = count === 0 ? scaled : op.Add(scaled, op.MatMul(sparse(op, params, inDim), U));
        return { w: op.MatMul(basis, inside) };
      },
    ),
  },
  peft: {
    types: ['FROD'],
    refuses: (fields) =>
      isSet(fields, 'save_projection')
        ? undefined
        : 'its file lacks the bases, whose signs every library chooses by itself; save it with save_projection=True',
    rearranged: sharedBases,
    restored: basesByCategory,
    tensors: {
      linear: {
        basis: { key: 'frod_V' },
        inverse: { key: 'frod_inverse' },
        gains: { key: 'frod_lambda_l' },
        values: { key: 'frod_lambda_s_values' },
        places: { key: 'frod_s_indices' },
      },
    },
    settings: (_fields, module) => ({ count: module?.shapes.get('frod_lambda_s_values')?.[0] ?? 0 }),
    config: ({ count }, modules) => {
      const inDim = modules.map(({ shapes }) => shapes.basis?.[0] ?? 1)[0] ?? 1;
      return { sparse_rate: Number(count) / (inDim * inDim), save_projection: true };
    },
  },
});
