/** softmax(scale·q·kᵀ + biases)·v in standard ops. */
import type { Value } from '../../../../src/graph.js';
import type { DType } from '../../../../src/types.js';
import type { Shapes } from '../../../grad/shapes.js';
import { refuse } from '../../expansion.js';
import { known, repeated } from './heads.js';

export interface Heads {
  /** [batch, heads, queries, width]. */
  readonly q: Value;
  /** [batch, key heads, keys, width]. */
  readonly k: Value;
  readonly v: Value;
}

export interface AttendOptions {
  /** Factor of the scores; 1/√width by default. */
  readonly scale?: number | undefined;
  /** Scores beyond it are flattened: c·tanh(scores/c). */
  readonly softcap?: number | undefined;
  /** Added to the scores, broadcastable to [batch, heads, queries, keys]; small ones first. */
  readonly biases?: readonly Value[];
  /** One more score per head that takes its share and looks at nothing: [heads], or one number for all. */
  readonly sink?: Value | number | undefined;
  /** What the softmax is computed in; the dtype of the scores by default. */
  readonly precision?: DType | undefined;
}

/** The result as [batch, heads, queries, width of v]. */
export function attend(shapes: Shapes, { q, k, v }: Heads, options: AttendOptions): Value {
  const { op } = shapes.b;
  const { biases = [], softcap = 0, precision } = options;
  const [heads, keyHeads] = [
    known(shapes, q, 1, 'the number of its heads'),
    known(shapes, k, 1, 'the number of its heads'),
  ];
  const group = heads / keyHeads;
  if (!Number.isInteger(group)) refuse(`${keyHeads} heads of keys do not divide ${heads} of queries`);
  const scale = options.scale ?? 1 / Math.sqrt(known(shapes, q, 3, 'the size of its heads'));
  const scaled = scale === 1 ? q : op.Mul(q, scale);
  let scores = op.MatMul(scaled, op.Transpose(repeated(shapes, k, group), { perm: [0, 1, 3, 2] }));
  if (softcap > 0) scores = op.Mul(op.Tanh(op.Div(scores, softcap)), softcap);
  const [first, ...others] = biases;
  if (first !== undefined)
    scores = op.Add(
      scores,
      others.reduce((sum, one) => op.Add(sum, one), first),
    );
  const dtype = shapes.dtype(scores);
  const wide = precision === undefined || precision === dtype ? scores : op.Cast(scores, { to: precision });
  const shares = softmax(shapes, wide, options.sink, heads);
  const weights = shapes.dtype(shares) === dtype ? shares : op.Cast(shares, { to: dtype });
  return op.MatMul(weights, repeated(shapes, v, group));
}

function softmax(shapes: Shapes, scores: Value, sink: Value | number | undefined, heads: number): Value {
  const { b } = shapes;
  if (sink === undefined) return b.op.Softmax(scores, { axis: -1 });
  const dtype = shapes.dtype(scores);
  const level =
    typeof sink === 'number'
      ? b.scalar(sink, dtype)
      : b.op.Reshape(b.op.Cast(sink, { to: dtype }), b.ints([1, heads, 1, 1]));
  const [batch = 1, , queries = 1] = shapes.sizes(scores);
  const column = b.op.Expand(level, shapes.vector([batch, heads, queries, 1]));
  const all = b.op.Softmax(b.op.Concat([scores, column], { axis: 3 }), { axis: -1 });
  return b.op.Slice(all, [0], [-1], [3]);
}
