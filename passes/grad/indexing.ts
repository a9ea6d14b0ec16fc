/** Gradients of ops that pick and place elements by index: each is the other's transpose. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { padAxis } from './pad.js';
import { defineGradient, type Gradient, type GradientRule } from './rule.js';

/** Rows of dy added up at their indices. The gathered axis goes to the front, where ScatterND adds whole slices. */
function gather(c: GradientContext): Value {
  const { op, shapes } = c;
  const axis = c.axis();
  const rank = c.rank();
  const indices = c.input(1);
  const indexRank = c.rank(indices);
  const single = indexRank === 0 ? c.scalar(indices) : undefined;
  if (single !== undefined)
    return padAxis(c, op.Unsqueeze(c.dy, [axis]), axis, single, shapes.size(c.x, axis));
  const range = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);
  // dy: [before…, indices…, after…] → [indices…, before…, after…]
  const front = [...range(axis, indexRank), ...range(0, axis), ...range(axis + indexRank, rank - 1 - axis)];
  const rows = shapes.transpose(c.dy, front);
  const sizes = shapes.sizes(c.x);
  const placed = [axis, ...range(0, axis), ...range(axis + 1, rank - 1 - axis)];
  const zeros = op.Expand(c.number(0), shapes.vector(placed.map((i) => sizes[i] ?? 1)));
  // Gather takes int32 as well, ScatterND does not.
  const places = shapes.dtype(indices) === 'int64' ? indices : op.Cast(indices, { to: 'int64' });
  const sum = op.ScatterND(zeros, op.Unsqueeze(places, [indexRank]), rows, { reduction: 'add' });
  const back = [...range(1, axis), 0, ...range(axis + 1, rank - 1 - axis)];
  return shapes.transpose(sum, back);
}

function reduction(c: GradientContext): string {
  return c.string('reduction', 'none');
}

/** Placed elements no longer reach the output when they replace; they still do when they are added. */
function scatter(clear: (c: GradientContext) => Value, pick: (c: GradientContext) => Value): GradientRule {
  return (c) => {
    const how = reduction(c);
    if (how !== 'none' && how !== 'add')
      return [c.stop(`reduction '${how}'`), null, c.stop(`reduction '${how}'`)];
    return [() => (how === 'add' ? c.dy : clear(c)), null, () => pick(c)];
  };
}

const scatterElements = scatter(
  (c) => c.op.ScatterElements(c.dy, c.input(1), c.shapes.zerosLike(c.input(2)), { axis: c.int('axis', 0) }),
  (c) => c.op.GatherElements(c.dy, c.input(1), { axis: c.int('axis', 0) }),
);

const scatterND = scatter(
  (c) => c.op.ScatterND(c.dy, c.input(1), c.shapes.zerosLike(c.input(2))),
  (c) => c.op.GatherND(c.dy, c.input(1)),
);

export const indexings: readonly Gradient[] = [
  defineGradient({ op: 'Gather' }, (c) => [() => gather(c), null]),
  defineGradient({ op: 'GatherElements' }, (c) => [
    () =>
      c.op.ScatterElements(c.shapes.zerosLike(c.x), c.input(1), c.dy, {
        axis: c.int('axis', 0),
        reduction: 'add',
      }),
    null,
  ]),
  defineGradient({ op: 'GatherND' }, (c) => [
    () => {
      if (c.int('batch_dims', 0) !== 0) return c.unsupported('batch_dims is not 0');
      return c.op.ScatterND(c.shapes.zerosLike(c.x), c.input(1), c.dy, { reduction: 'add' });
    },
    null,
  ]),
  defineGradient({ op: 'ScatterElements' }, scatterElements),
  defineGradient({ op: 'ScatterND' }, scatterND),
  defineGradient({ op: 'TopK' }, (c) => [
    () => c.op.ScatterElements(c.shapes.zerosLike(c.x), c.node.output(1), c.dy, { axis: c.int('axis', -1) }),
    null,
  ]),
];
