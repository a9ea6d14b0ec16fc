/**
 * Connectionist temporal classification (Graves et al., 2006), as `torch.nn.CTCLoss`: −log of the summed probability of
 * all alignments of a label sequence to the frames. Computed in log space over the labels l' with a blank around each,
 *
 *   α_t(j) = log p_t(l'_j) + logsumexp(α_{t−1}(j), α_{t−1}(j−1), α_{t−1}(j−2) where l'_j is a label that differs from l'_{j−2})
 *
 * by one Scan over the frames, forwards for α and backwards for the same recursion β from the end. With both, the
 * gradient by the scores is p_t(c) − Σ_{l'_j = c} exp(α_t(j) + β_t(j) − log p_t(l'_j) − log P).
 */

import { z } from 'zod';
import { intAttribute } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import { Graph, Value } from '../../src/graph.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, formatType, tensorType } from '../../src/types.js';
import { rankOf, shapeOf } from '../../src/value-type.js';
import { castTo, defineLoss, floatTensor, lossDtype } from './loss.js';

/** Logarithm of nothing: −∞ would make NaN of a difference. */
const NOTHING = -1e30;
/** What is below this holds a NOTHING. */
const IMPOSSIBLE = -1e29;

export const ctc = defineLoss({
  id: 'ctc',
  summary: 'CTC: sequences read off frames without an alignment, for text recognition and speech',
  config: z.strictObject({
    output: z.string().optional(),
    labels: z.string().default('labels'),
    /** Class that says nothing. */
    blank: z.int().min(0).default(0),
    /** Pads label sequences. */
    ignoreIndex: z.int().default(-100),
    /** Name of an input int64 [batch] with the number of frames that count, where rows differ. */
    lengths: z.string().min(1).optional(),
    /** What the output holds; `auto`: scores, or probabilities where a Softmax makes them, which is then read before it. */
    input: z.enum(['auto', 'logits', 'probabilities']).default('auto'),
  }),
  /** The mean is over rows with a label. Rows whose labels need more frames than there are count nothing. */
  build(context, { output, labels: name, blank, ignoreIndex, lengths, input }) {
    const { b } = context;
    const { op } = b;
    const found = context.output(output);
    const scores = input === 'auto' ? beforeSoftmax(b, found) : found;
    const { dtype: stored, shape } = floatTensor(scores, 'ctc', 3);
    if (shape.length !== 3)
      fail('E_TYPE', {
        message: `The loss 'ctc' needs scores [batch, frames, classes], not ${formatType(scores.type)}`,
        where: scores.label,
        remedy: 'Name another output of the model',
      });
    const [batch = null, , classes] = shape;
    if (typeof classes === 'number' && blank >= classes)
      fail('E_USAGE', {
        message: `The blank is class ${blank} of ${classes}`,
        where: `loss ctc on '${scores.label}'`,
        remedy: 'Classes count from 0',
      });
    const dtype = lossDtype(stored);
    const labels = context.label({ name, dtype: 'int64', shape: [batch, 'labels'], padding: ignoreIndex });
    const lengthsOf = (): Value => context.label({ name: lengths as string, dtype: 'int64', shape: [batch] });
    const frames = lengths === undefined ? undefined : lengthsOf();
    const wide = castTo(b, scores, dtype);
    const z = input === 'probabilities' ? op.Log(op.Max([wide, b.scalar(1e-30, dtype)])) : wide;

    const none = b.scalar(blank, 'int64');
    const { extended, count } = withBlanks(b, labels, none, ignoreIndex);
    const p = op.Softmax(z, { axis: -1 });
    const sizes = op.Concat([op.Shape(z, { start: 0, end: 2 }), op.Shape(extended, { start: 1, end: 2 })], {
      axis: 0,
    });
    const places = op.Expand(op.Unsqueeze(extended, [1]), sizes);
    // log p_c = z_c − max z + log max p
    const own = op.GatherElements(z, places, { axis: 2 });
    const top = op.ReduceMax(z, [2], { keepdims: 1 });
    const logP = op.Add(op.Sub(own, top), op.Log(op.ReduceMax(p, [2], { keepdims: 1 })));
    const counts = frames === undefined ? undefined : frameMask(b, z, frames);
    const { last, alpha, beta, end } = recursions(b, { logP, extended, count, blank: none, counts, dtype });
    const likelihood = logSumExp(b, op.Add(last, end));
    const fits = op.Greater(likelihood, b.scalar(IMPOSSIBLE, dtype));
    const labelled = op.Greater(count, 0);
    const counted = op.And(fits, labelled);
    const rowWeight = op.Cast(counted, { to: dtype });
    const zero = b.scalar(0, dtype);
    const unfit = op.Cast(op.And(op.Not(fits), labelled), { to: dtype });
    return {
      total: op.ReduceSum(op.Where(counted, op.Neg(likelihood), zero), { keepdims: 0 }),
      weight: op.ReduceSum(rowWeight, { keepdims: 0 }),
      metrics: [
        {
          name: 'unaligned',
          value: op.ReduceSum(unfit, { keepdims: 0 }),
          reduce: 'sum',
          perWeight: false,
        },
      ],
      gradient(scale) {
        const perRow = (value: Value) => op.Unsqueeze(value, [1, 2]);
        const exponent = op.Sub(op.Sub(op.Add(alpha, beta), logP), perRow(likelihood));
        const posterior = op.Exp(op.Min([exponent, zero]));
        let factor = perRow(op.Mul(rowWeight, scale));
        if (counts !== undefined) factor = op.Mul(factor, op.Unsqueeze(op.Cast(counts, { to: dtype }), [2]));
        const taken = op.Neg(op.Mul(posterior, factor));
        const dz = op.ScatterElements(op.Mul(p, factor), places, taken, { axis: 2, reduction: 'add' });
        const of = input === 'probabilities' ? z : scores;
        return { of, value: input === 'probabilities' ? dz : castTo(b, dz, stored) };
      },
    };
  },
});

/**
 * The scores that a Softmax over classes makes probabilities of; the value itself where there is none. Before opset 13
 * Softmax normalised over all axes from `axis` on, by default from 1: frames and classes together.
 */
function beforeSoftmax(b: Builder, value: Value): Value {
  const node = value.producer;
  if (node?.domain !== '' || node.op !== 'Softmax') return value;
  const rank = rankOf(value) ?? 0;
  const axis = intAttribute(node, 'axis', b.opset('') < 13 ? 1 : -1);
  return axis === -1 || axis === rank - 1 ? node.input(0) : value;
}

/** A blank before, between and behind the labels: int64 [batch, 2·labels + 1]; and how many labels there are, [batch]. */
function withBlanks(
  { op }: Builder,
  labels: Value,
  none: Value,
  ignoreIndex: number,
): { extended: Value; count: Value } {
  const counted = op.Not(op.Equal(labels, ignoreIndex));
  // Padding becomes blanks behind the end, which no alignment reaches.
  const known = op.Unsqueeze(op.Where(counted, labels, none), [2]);
  const blanks = op.Add(op.Mul(known, 0), none);
  const pairs = op.Reshape(op.Concat([blanks, known], { axis: 2 }), [0, -1]);
  return {
    extended: op.Pad(pairs, [0, 0, 0, 1], none),
    count: op.ReduceSum(op.Cast(counted, { to: 'int64' }), [1], { keepdims: 0 }),
  };
}

/** Which frames count, bool [batch, frames]. */
function frameMask({ op }: Builder, z: Value, frames: Value): Value {
  const time = op.Range(0, op.Squeeze(op.Shape(z, { start: 1, end: 2 }), [0]), 1);
  return op.Less(time, op.Unsqueeze(frames, [1]));
}

interface Alignment {
  /** log p of the labels with blanks, [batch, frames, places]. */
  readonly logP: Value;
  /** [batch, places]. */
  readonly extended: Value;
  /** Labels per row, [batch]. */
  readonly count: Value;
  /** The class of the blank, scalar. */
  readonly blank: Value;
  /** Frames that count, bool [batch, frames]; all where undefined. */
  readonly counts: Value | undefined;
  readonly dtype: DType;
}

interface Recursions {
  /** α after the last frame, [batch, places]. */
  readonly last: Value;
  /** α and β·p, [batch, frames, places]. */
  readonly alpha: Value;
  readonly beta: Value;
  /** log 1 at the two places where an alignment may end, [batch, places]. */
  readonly end: Value;
}

function recursions(b: Builder, { logP, extended, count, blank, counts, dtype }: Alignment): Recursions {
  const { op } = b;
  const yes = b.scalar(0, dtype);
  const no = b.scalar(NOTHING, dtype);
  const place = op.Add(
    op.Range(0, op.Squeeze(op.Shape(extended, { start: 1, end: 2 }), [0]), 1),
    op.Mul(extended, 0),
  );
  const final = op.Mul(op.Unsqueeze(count, [1]), 2);
  const start = op.Where(op.Equal(place, 0), yes, no);
  const back = op.Where(op.Equal(place, final), yes, no);
  const ends = op.Or(op.Equal(place, final), op.Equal(place, op.Sub(final, 1)));
  // A blank may be left out between labels that differ.
  const before = op.Pad(op.Slice(extended, [0], [-2], [1]), [0, 2, 0, 0], blank);
  const skip = op.Where(op.Equal(extended, before), no, yes);

  const inner = new Builder(b.model, { ...(b.provenance === undefined ? {} : { provenance: b.provenance }) });
  const row = tensorType(dtype, shapeOf(start) ?? [null, null]);
  const flag = tensorType('bool', [row.shape?.[0] ?? null]);
  const given = (hint: string, type = row) => new Value({ hint, type });
  const inputs = [given('alpha'), given('beta'), given('forward'), given('backward')] as const;
  const flags = counts === undefined ? [] : [given('counts', flag), given('counts_back', flag)];
  const [alpha, beta, forward, backward] = inputs;
  const nothing = inner.scalar(NOTHING, dtype);
  const shifted = (value: Value, by: number): Value =>
    by > 0
      ? inner.op.Pad(inner.op.Slice(value, [0], [-by], [1]), [0, by, 0, 0], nothing)
      : inner.op.Pad(inner.op.Slice(value, [-by], [END], [1]), [0, 0, 0, -by], nothing);
  const step = (state: Value, far: Value, sign: 1 | -1, own: Value, counts?: Value): Value => {
    const next = inner.op.Add(own, logSumExp3(inner, [state, shifted(state, sign), far]));
    return counts === undefined ? next : inner.op.Where(inner.op.Unsqueeze(counts, [1]), next, state);
  };
  const nextAlpha = step(alpha, inner.op.Add(shifted(alpha, 2), skip), 1, forward, flags[0]);
  const nextBeta = step(beta, shifted(inner.op.Add(beta, skip), -2), -1, backward, flags[1]);
  const body = new Graph();
  body.name = 'ctc';
  for (const value of [...inputs, ...flags]) body.addInput(value);
  // What is carried is what is kept, but one value cannot be returned under two names.
  const results = [nextAlpha, nextBeta, inner.op.Identity(nextAlpha), inner.op.Identity(nextBeta)];
  for (const value of inner.initializers) body.addInitializer(value);
  for (const node of inner.nodes) body.append(node);
  for (const value of results) body.addOutput(undefined, value);
  const scanned = [logP, logP, ...(counts === undefined ? [] : [counts, counts])];
  const [last, , alphas, betas] = b.call(
    'Scan',
    [start, back, ...scanned],
    {
      body,
      num_scan_inputs: scanned.length,
      scan_input_axes: scanned.map(() => 1),
      scan_input_directions: scanned.map((_, i) => i % 2),
      scan_output_axes: [1, 1],
      scan_output_directions: [0, 1],
    },
    { outputs: 4 },
  ) as [Value, Value, Value, Value];
  return { last, alpha: alphas, beta: betas, end: op.Where(ends, yes, no) };
}

/** Beyond the end of any axis. */
const END = 2 ** 31 - 1;

function logSumExp3({ op }: Builder, terms: readonly Value[]): Value {
  const top = op.Max([...terms]);
  return op.Add(top, op.Log(op.Sum(terms.map((term) => op.Exp(op.Sub(term, top))))));
}

/** Over places: [batch]. */
function logSumExp({ op }: Builder, terms: Value): Value {
  const top = op.ReduceMax(terms, [1], { keepdims: 1 });
  const sum = op.ReduceSum(op.Exp(op.Sub(terms, top)), [1], { keepdims: 0 });
  return op.Add(op.Squeeze(top, [1]), op.Log(sum));
}
