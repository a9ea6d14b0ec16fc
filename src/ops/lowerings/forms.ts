/** Operators that exist at older opsets in another form: inputs that were attributes, attributes with another meaning. */
import { type Attribute, attr, intAttribute, intsAttribute } from '../../attribute.js';
import { Value } from '../../graph.js';
import { tensorOf } from '../../literals.js';
import { type OpCall, withAttributes, withInputs } from '../op-call.js';
import {
  decompose,
  intsToAttribute,
  knownInts,
  knownNumber,
  type Lowering,
  type Step,
  scalarsToAttributes,
  unsupported,
} from './step.js';

const ALWAYS = Number.POSITIVE_INFINITY;

function rankOf(call: OpCall, index = 0): number | undefined {
  const operand = call.inputs[index];
  const type = operand instanceof Value ? operand.type : undefined;
  return type?.kind === 'tensor' ? type.shape?.length : undefined;
}

/** Before opset 11 axes count from the front only. `extra` is what the result has more dimensions than the input. */
function frontAxes(name: string, extra: (call: OpCall) => number = () => 0): Lowering {
  const step: Step = (call, _, opset) => {
    const attribute = call.attributes.get(name);
    const given =
      attribute?.type === 'ints' ? attribute.value : attribute?.type === 'int' ? [attribute.value] : [];
    if (attribute === undefined || given.every((axis) => axis >= 0n)) return call;
    const rank = rankOf(call);
    if (rank === undefined)
      return unsupported(call, opset, `a negative '${name}' needs an input of known rank`);
    const front = given.map((axis) => (axis < 0n ? axis + BigInt(rank + extra(call)) : axis));
    return withAttributes(call, {
      [name]: attribute.type === 'int' ? attr.int(front[0]!) : attr.ints(front),
    });
  };
  return { before: 11, step };
}

const reduction = (before: number): readonly Lowering[] => [
  { before, step: intsToAttribute(1, 'axes') },
  frontAxes('axes'),
];

/**
 * Before opset 13 Softmax and its kin flatten everything from `axis` on. On the last axis both readings agree;
 * another axis is moved there.
 */
const lastAxis: Step = (call, builder, opset) => {
  const axis = intAttribute(call, 'axis', -1);
  const rank = rankOf(call);
  // A default axis of 1 holds where 'axis' is left out, so it is always written.
  if (axis === -1 && opset >= 11) return withAttributes(call, { axis: attr.int(-1) });
  if (rank === undefined) return unsupported(call, opset, 'the rank of the input must be known');
  const at = axis < 0 ? axis + rank : axis;
  if (at === rank - 1) return withAttributes(call, { axis: attr.int(rank - 1) });
  const perm = Array.from({ length: rank }, (_, i) => (i === at ? rank - 1 : i === rank - 1 ? at : i));
  const moved = builder.op.Transpose(call.inputs[0]!, { perm });
  const inner = withAttributes(withInputs(call, [moved]), { axis: attr.int(rank - 1) });
  return [builder.op.Transpose(builder.emit(inner)[0]!, { perm })];
};

/** `split` or `num_outputs` must be given from opset 18 on. */
const splitCount: Step = (call) =>
  call.inputs[1] != null || call.attributes.has('num_outputs') || typeof call.outputs !== 'number'
    ? call
    : withAttributes(call, { num_outputs: attr.int(call.outputs) });

/** Older forms split evenly; parts of another size are stated. */
const evenSplit: Step = (call, _, opset) => {
  const attribute = call.attributes.get('num_outputs');
  const plain = withAttributes(call, { num_outputs: undefined });
  if (attribute?.type !== 'int' || call.inputs[1] != null) return plain;
  const operand = call.inputs[0];
  const type = operand instanceof Value && operand.type?.kind === 'tensor' ? operand.type : undefined;
  const dim = type?.shape?.at(intAttribute(call, 'axis', 0));
  if (typeof dim !== 'number') return plain;
  const parts = Number(attribute.value);
  if (dim % parts === 0) return plain;
  const size = Math.ceil(dim / parts);
  if (size * (parts - 1) >= dim)
    return unsupported(call, opset, `${dim} elements cannot be split in ${parts}`);
  const sizes = Array.from({ length: parts }, (_, i) => (i < parts - 1 ? size : dim - size * (parts - 1)));
  return withInputs(plain, [operand!, sizes]);
};

/** Before opset 18 pads cover all axes. */
const padAllAxes: Step = (call, _, opset) => {
  if (call.inputs[3] == null) return withInputs(call, call.inputs.slice(0, 3));
  const rank = rankOf(call);
  const axes = knownInts(call.inputs[3]);
  const pads = knownInts(call.inputs[1]);
  if (rank === undefined || axes === undefined || pads === undefined)
    return unsupported(call, opset, "'axes' and 'pads' must be constant, and the rank known");
  const full = new Array<bigint>(2 * rank).fill(0n);
  for (const [i, axis] of axes.entries()) {
    const at = axis < 0n ? Number(axis) + rank : Number(axis);
    full[at] = pads[i]!;
    full[at + rank] = pads[i + axes.length]!;
  }
  return withInputs(call, [call.inputs[0]!, full, call.inputs[2] ?? null]);
};

/** Pads and fill value as attributes. */
const padAttributes: Step = (call, _, opset) => {
  const pads = knownInts(call.inputs[1]);
  const value = call.inputs[2] == null ? 0 : knownNumber(call.inputs[2]);
  if (pads === undefined || value === undefined)
    return unsupported(call, opset, "'pads' and the fill value must be constant");
  return withAttributes(withInputs(call, call.inputs.slice(0, 1)), {
    pads: attr.ints(pads),
    value: attr.float(value),
  });
};

/** Bounds as attributes; steps other than 1 do not exist. */
const sliceAttributes: Step = (call, _, opset) => {
  const [data, starts, ends, axes, steps] = call.inputs;
  const known = { starts: knownInts(starts), ends: knownInts(ends), axes: knownInts(axes) };
  const stepped = steps != null && knownInts(steps)?.every((step) => step === 1n) !== true;
  if (stepped) return unsupported(call, opset, 'steps other than 1 are not available');
  if (known.starts === undefined || known.ends === undefined || (axes != null && known.axes === undefined))
    return unsupported(call, opset, 'bounds must be constant');
  return withAttributes(withInputs(call, [data!]), {
    starts: attr.ints(known.starts),
    ends: attr.ints(known.ends),
    ...(known.axes === undefined ? {} : { axes: attr.ints(known.axes) }),
  });
};

/** Ratio as attribute; the mode cannot be chosen. */
const dropoutAttributes: Step = (call, _, opset) => {
  const mode = call.inputs[2];
  if (mode != null && knownNumber(mode) !== 0)
    return unsupported(call, opset, 'training mode is not available');
  const ratio = call.inputs[1] == null ? 0.5 : knownNumber(call.inputs[1]);
  if (ratio === undefined) return unsupported(call, opset, "'ratio' must be constant");
  return withAttributes(withInputs(call, call.inputs.slice(0, 1)), { ratio: attr.float(ratio) });
};

/** Constants of any kind as the one `value` tensor. */
const valueTensor: Step = (call) => {
  const changes: Record<string, Attribute | undefined> = {};
  for (const [name, attribute] of call.attributes) {
    if (attribute.type === 'int') changes.value = attr.tensor(tensorOf('int64', [], [attribute.value]));
    else if (attribute.type === 'float')
      changes.value = attr.tensor(tensorOf('float32', [], [attribute.value]));
    else if (attribute.type === 'ints')
      changes.value = attr.tensor(tensorOf('int64', [attribute.value.length], attribute.value));
    else if (attribute.type === 'floats')
      changes.value = attr.tensor(tensorOf('float32', [attribute.value.length], attribute.value));
    else continue;
    changes[name] = undefined;
  }
  return withAttributes(call, changes);
};

/** Before opset 12 base and exponent share a dtype. */
const samePowTypes: Step = (call, builder) => {
  const [base, exponent] = call.inputs;
  if (!(base instanceof Value) || !(exponent instanceof Value)) return call;
  const to = base.type?.kind === 'tensor' ? base.type.dtype : undefined;
  const from = exponent.type?.kind === 'tensor' ? exponent.type.dtype : undefined;
  return to === undefined || to === from ? call : withInputs(call, [base, builder.op.Cast(exponent, { to })]);
};

const concatenated = (call: OpCall): number => {
  return intsAttribute(call, 'axes')?.length ?? 0;
};

const flattening: readonly Lowering[] = [{ before: 13, step: lastAxis }];

export const forms: Readonly<Record<string, readonly Lowering[]>> = {
  ReduceMean: reduction(18),
  ReduceMax: reduction(18),
  ReduceMin: reduction(18),
  ReduceProd: reduction(18),
  ReduceL1: reduction(18),
  ReduceL2: reduction(18),
  ReduceLogSum: reduction(18),
  ReduceLogSumExp: reduction(18),
  ReduceSumSquare: reduction(18),
  ReduceSum: reduction(13),
  Squeeze: [{ before: 13, step: intsToAttribute(1, 'axes') }, frontAxes('axes')],
  Unsqueeze: [{ before: 13, step: intsToAttribute(1, 'axes') }, frontAxes('axes', concatenated)],
  Concat: [frontAxes('axis')],
  Gather: [frontAxes('axis')],
  Flatten: [frontAxes('axis')],
  ArgMax: [frontAxes('axis')],
  ArgMin: [frontAxes('axis')],
  Split: [
    { before: ALWAYS, step: splitCount },
    { before: 18, step: evenSplit },
    { before: 13, step: intsToAttribute(1, 'split') },
    frontAxes('axis'),
  ],
  Softmax: flattening,
  LogSoftmax: flattening,
  Hardmax: flattening,
  Clip: [{ before: 11, step: scalarsToAttributes(1, ['min', 'max']) }],
  TopK: [frontAxes('axis'), { before: 10, step: scalarsToAttributes(1, ['k'], attr.int) }],
  Pad: [
    { before: 18, step: padAllAxes },
    { before: 11, step: padAttributes },
  ],
  Slice: [{ before: 10, step: sliceAttributes }],
  Dropout: [{ before: 12, step: dropoutAttributes }],
  Constant: [{ before: 12, step: valueTensor }],
  Pow: [{ before: 12, step: samePowTypes }],
  Shape: [
    {
      before: 15,
      step: (call, builder, opset) => {
        if (!call.attributes.has('start') && !call.attributes.has('end')) return call;
        return decompose((p, op) => {
          const dims = op.Shape(p.value(0));
          return op.Slice(dims, [p.int('start', 0)], [p.int('end', 2 ** 31 - 1)]);
        })(call, builder, opset);
      },
    },
  ],
};
