import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { type Dim, DTYPE_CODES, type DType, tensorType } from '../../../src/types.js';
import { dtypeOf, rankOf, shapeOf, sizeAt } from '../../../src/value-type.js';
import type { AttentionSite } from '../site.js';
import type { AttentionDims } from '../views.js';
import type { Kind } from './kind.js';
import { lazily } from './lazily.js';
import { at } from './weights.js';

/**
 * Attention over more keys and values than the graph's own. The joint softmax is taken over scores: those of the new
 * keys stand in front of the masked ones, and the weights are cut apart behind it. Masks, positions and the shapes of
 * everything else stay as they are:
 *
 *   P = softmax([scale·q·(keyScale·Kₙ)ᵀ, scores]),  y = P[l:]·V + P[:l]·Vₙ
 */
export const attention: Kind<AttentionSite> = {
  dims: ({ path, dtype, heads, keyValueHeads, headDim, cross, hidden }): AttentionDims => ({
    path,
    dtype,
    heads,
    keyValueHeads,
    headDim,
    cross,
    hiddenDim: hidden === undefined ? undefined : sizeAt(hidden.node.input(hidden.index), -1),
  }),

  stored: () => ({}),

  open({ op }, site) {
    const { softmax, product, query, hidden } = site;
    const view = lazily(attention.dims(site), {
      x: () => (hidden === undefined ? undefined : hidden.node.input(hidden.index)),
    });
    const weights = softmax.output(0);
    return {
      view,
      slots: {
        keys: (keys) => {
          const length = lengthOf(keys, site);
          const scores = softmax.input(0);
          const factor = site.scale * site.keyScale;
          const spread = typed(op, repeated(op, keys, site), dtypeOf(query.node.input(query.index)));
          const perm = rankOf(keys) === 4 ? [0, 1, 3, 2] : [0, 2, 1];
          const queries = byHead(op, query.node.input(query.index), site);
          const raw = likeRank(op, op.MatMul(queries, op.Transpose(spread, { perm })), scores);
          const scaled = capped(op, factor === 1 ? raw : op.Mul(raw, factor), site.cap);
          const joint = op.Concat([typed(op, scaled, dtypeOf(scores)), scores], { axis: -1 });
          return {
            at: { before: softmax },
            redirects: [
              { from: scores, to: joint, only: at(softmax, 0) },
              { from: weights, to: columns(op, weights, [length, END], shapeOf(weights)?.at(-1) ?? null) },
            ],
            retyped: [weights],
          };
        },
        values: (values) => {
          const length = lengthOf(values, site);
          const own = product.node.output(0);
          const dtype = dtypeOf(own);
          const share = byHead(op, typed(op, columns(op, weights, [0, length], length), dtype), site);
          const mixed = op.MatMul(share, typed(op, repeated(op, values, site), dtype));
          const added = likeRank(op, mixed, own);
          return {
            at: { after: product.node },
            redirects: [{ from: own, to: op.Add(own, added) }],
            retyped: [weights],
          };
        },
      },
    };
  },
};

/** `size` columns of the weights, whose type says nothing of the new keys yet. */
function columns(op: Ops, weights: Value, [start, end]: readonly [number, number], size: Dim | null): Value {
  const cut = op.Slice(weights, [start], [end], [-1]);
  const shape = shapeOf(weights);
  const dtype = dtypeOf(weights);
  if (shape !== undefined && dtype !== undefined) cut.type = tensorType(dtype, [...shape.slice(0, -1), size]);
  return cut;
}

/** [batch·heads, …] as [batch, heads, …]. */
function byHead(op: Ops, value: Value, { heads }: AttentionSite): Value {
  if (rankOf(value) !== 3) return value;
  return op.Reshape(value, op.Concat([[-1, heads], op.Slice(op.Shape(value), [1], [3], [0])], { axis: 0 }));
}

/** [batch, heads, …] as [batch·heads, …] where `like` has these axes. */
function likeRank(op: Ops, value: Value, like: Value): Value {
  if (rankOf(like) !== 3) return value;
  return op.Reshape(value, op.Concat([[-1], op.Slice(op.Shape(value), [2], [4], [0])], { axis: 0 }));
}

/** c·tanh(scores / c) */
function capped(op: Ops, scores: Value, cap: number | undefined): Value {
  return cap === undefined ? scores : op.Mul(op.Tanh(op.Div(scores, cap)), cap);
}

/** Behind every axis. */
const END = Number.MAX_SAFE_INTEGER;

function lengthOf(value: Value, { path }: AttentionSite): number {
  const rank = rankOf(value);
  return (
    (rank === 3 || rank === 4 ? sizeAt(value, -2) : undefined) ??
    fail('E_TYPE', {
      message: 'More keys and values need 3 or 4 axes, [heads, length, head], and a known length',
      where: path,
    })
  );
}

/** Keys or values once per query head: grouped queries share them in runs. */
function repeated(op: Ops, value: Value, { heads, keyValueHeads, headDim }: AttentionSite): Value {
  if (keyValueHeads === heads) return value;
  const repeats = heads / keyValueHeads;
  const batched = rankOf(value) === 4;
  const axis = batched ? 2 : 1;
  const lead = batched ? [1, 1] : [1];
  const spread = op.Expand(op.Unsqueeze(value, [axis]), [...lead, repeats, 1, 1]);
  return op.Reshape(spread, batched ? [0, heads, -1, headDim] : [heads, -1, headDim]);
}

function typed(op: Ops, value: Value, dtype: DType | undefined): Value {
  return dtype === undefined || dtypeOf(value) === dtype ? value : op.Cast(value, { to: DTYPE_CODES[dtype] });
}
