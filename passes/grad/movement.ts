/** Gradients of ops that move data without changing it. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { padAxis } from './pad.js';
import { defineGradient, type Gradient, type GradientRule } from './rule.js';
import { permOf, type Size } from './shapes.js';

function move(op: string, rule: (c: GradientContext) => Value): Gradient {
  return defineGradient({ op }, (c) => [() => rule(c)]);
}

/** dy has the elements of x in the same order. */
function reshaped(op: string): Gradient {
  return move(op, (c) => c.shapes.reshapeLike(c.dy, c.x));
}

function inverse(perm: readonly number[]): number[] {
  const result = new Array<number>(perm.length).fill(0);
  perm.forEach((axis, i) => {
    result[axis] = i;
  });
  return result;
}

/** One Split for all inputs, made when the first of them asks; a Slice when only one asks. */
const concat: GradientRule = (c) => {
  const axis = c.shapes.axis(c.y, c.int('axis', 1));
  const count = c.node.inputs.length;
  const sizes = () => c.node.inputs.map((_, i) => c.shapes.size(c.input(i), axis));
  const wanted = c.node.inputs.filter((_, i) => c.needs(i)).length;
  let parts: readonly Value[] | undefined;
  return c.node.inputs.map((_, i) => () => {
    if (count === 1) return c.dy;
    if (wanted === 1) return sliceOut(c, axis, sizes(), i);
    parts ??= c.op.Split(c.dy, c.shapes.vector(sizes()), { axis }, count);
    return parts[i] ?? c.unsupported('no such part');
  });
};

function sliceOut(c: GradientContext, axis: number, sizes: readonly Size[], index: number): Value {
  const add = (a: Size, b: Size): Size =>
    typeof a === 'number' && typeof b === 'number' ? a + b : c.op.Add(a, b);
  const start = sizes.slice(0, index).reduce(add, 0);
  const end = add(start, sizes[index] ?? 0);
  const bound = (size: Size) => c.shapes.vector([size]);
  return c.op.Slice(c.dy, bound(start), bound(end), [axis]);
}

/** Concat of the parts' cotangents, with zeros where the loss ignores a part. */
const split: GradientRule = (c) => {
  const axis = c.axis('axis', 0);
  return [
    () =>
      c.op.Concat(
        c.node.outputs.map((_, i) => c.cotangent(i)),
        { axis },
      ),
  ];
};

/** Repeats of x lie side by side: [r0, d0, r1, d1, …] summed over the r axes. */
function tile(c: GradientContext): Value {
  const rank = c.rank();
  const known = c.known(c.input(1));
  const evens = Array.from({ length: rank }, (_, i) => 2 * i);
  const sizes = c.shapes.sizes(c.x);
  const pairs: Size[] = sizes.flatMap((size, i) => [
    known?.[i] ?? c.op.Slice(c.input(1), [i], [i + 1], [0]),
    size,
  ]);
  return c.shapes.reshapeLike(c.op.ReduceSum(c.shapes.reshape(c.dy, pairs), evens, { keepdims: 0 }), c.x);
}

/** A padded constant is cut off again: padding by the negated amounts. */
function unpadded(c: GradientContext): Value {
  if (c.string('mode', 'constant') !== 'constant')
    return c.unsupported(`mode '${c.string('mode', 'constant')}' repeats elements`);
  const attribute = c.ints('pads');
  if (attribute !== undefined)
    return c.op.Pad(
      c.dy,
      attribute.map((pad) => -pad),
    );
  const pads = c.known(c.input(1));
  return c.op.Pad(
    c.dy,
    pads === undefined ? c.op.Neg(c.input(1)) : pads.map((pad) => -pad),
    null,
    c.optional(3) ?? null,
  );
}

interface Range {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
  readonly step: number;
}

/** The constant ranges of a Slice in either form; undefined when they are computed at run time. */
function rangesOf(c: GradientContext): Range[] | undefined {
  const read = (name: string, index: number, fallback: (n: number) => number[]) => {
    const attribute = c.ints(name);
    if (attribute !== undefined) return attribute;
    const value = c.optional(index);
    return value === undefined ? fallback(starts?.length ?? 0) : c.known(value);
  };
  const starts: number[] | undefined = c.ints('starts') ?? c.known(c.input(1));
  const ends = c.ints('ends') ?? (c.optional(2) === undefined ? undefined : c.known(c.input(2)));
  const axes = read('axes', 3, (n) => Array.from({ length: n }, (_, i) => i));
  const steps = read('steps', 4, (n) => new Array<number>(n).fill(1));
  if (starts === undefined || ends === undefined || axes === undefined || steps === undefined)
    return undefined;
  return axes.map((axis, i) => ({
    axis: c.shapes.axis(c.x, axis),
    start: starts[i] ?? 0,
    end: ends[i] ?? 0,
    step: steps[i] ?? 1,
  }));
}

/** Zeros around dy, axis by axis; strided and run-time ranges scatter instead. */
function sliced(c: GradientContext): Value {
  const ranges = rangesOf(c);
  if (ranges === undefined || ranges.some(({ step }) => step !== 1)) return scattered(c);
  return ranges.reduce(
    (value, { axis, start }) => padAxis(c, value, axis, start, c.shapes.size(c.x, axis)),
    c.dy,
  );
}

/** Slices the positions 0…n-1 as x was sliced and scatters dy to them. */
function scattered(c: GradientContext): Value {
  const { op, shapes } = c;
  const count = op.Size(c.x);
  const positions = op.Reshape(
    op.Range(c.b.scalar(0, 'int64'), count, c.b.scalar(1, 'int64')),
    shapes.shape(c.x),
  );
  const [, starts, ends, axes, steps] = c.node.inputs;
  const taken =
    starts == null || ends == null
      ? op.Slice(positions, c.ints('starts') ?? [], c.ints('ends') ?? [], c.ints('axes') ?? null)
      : op.Slice(positions, starts, ends, axes ?? null, steps ?? null);
  const flat = op.ScatterElements(
    op.Expand(c.number(0), op.Reshape(count, [1])),
    op.Reshape(taken, [-1]),
    op.Reshape(c.dy, [-1]),
    { axis: 0 },
  );
  return op.Reshape(flat, shapes.shape(c.x));
}

export const movements: readonly Gradient[] = [
  reshaped('Reshape'),
  reshaped('Flatten'),
  reshaped('Squeeze'),
  reshaped('Unsqueeze'),
  move('Transpose', (c) => c.shapes.transpose(c.dy, inverse(permOf(c.node, c.rank())))),
  defineGradient({ op: 'Expand', broadcasts: true }, (c) => [() => c.dy]),
  defineGradient({ op: 'Concat' }, concat),
  defineGradient({ op: 'Split' }, split),
  move('Slice', sliced),
  defineGradient({ op: 'Pad' }, (c) => [
    () => unpadded(c),
    null,
    // What went into the padding is the rest of the sum.
    () => {
      const total = (value: Value) => c.op.ReduceSum(value, null, { keepdims: 0 });
      return c.shapes.reshapeLike(c.op.Sub(total(c.dy), total(unpadded(c))), c.input(2));
    },
  ]),
  move('Tile', tile),
  // The lower (or upper) triangle is kept, and so is its cotangent.
  move('Trilu', (c) => c.op.Trilu(c.dy, c.optional(1) ?? null, { upper: c.int('upper', 1) })),
  defineGradient({ op: 'Trilu', domain: 'com.microsoft' }, (c) => [
    () => c.op.Trilu(c.dy, c.optional(1) ?? null, { upper: c.int('upper', 1) }),
  ]),
  move('DepthToSpace', (c) => {
    const size = c.int('blocksize', 1);
    if (c.string('mode', 'DCR') === 'DCR') return c.op.SpaceToDepth(c.dy, { blocksize: size });
    return c.unsupported('mode CRD has no inverse op');
  }),
  move('SpaceToDepth', (c) => c.op.DepthToSpace(c.dy, { blocksize: c.int('blocksize', 1), mode: 'DCR' })),
];
