import type { Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { draw, type GradientCase, type TensorInput } from '../harness.js';

function move(
  name: string,
  shape: number[],
  build: (b: Builder, x: Value, others: readonly Value[]) => Value | readonly Value[],
  more: Partial<GradientCase> & { others?: TensorInput[] } = {},
): GradientCase {
  const { others = [], ...rest } = more;
  return {
    name,
    inputs: [{ shape }, ...others],
    build: (b, [x, ...values]) => build(b, b.op.Mul(x!, x!), values),
    ...rest,
  };
}

const ids = (data: number[], shape: number[]): TensorInput => ({ shape, fixed: { dtype: 'int64', data } });

export const movement: Record<string, GradientCase[]> = {
  Reshape: [
    move('Reshape', [2, 3, 4], (b, x) => b.op.Reshape(x, [4, -1])),
    move('Reshape heads', [2, 3, 4], (b, x) => b.op.Reshape(x, [0, 0, 2, 2])),
    move('Reshape run-time', [2, 3, 4], (b, x, [shape]) => b.op.Reshape(x, shape!), {
      others: [ids([6, 4], [2])],
    }),
  ],
  Flatten: [0, 1, 2, 3].map((axis) =>
    move(`Flatten ${axis}`, [2, 3, 4], (b, x) => b.op.Flatten(x, { axis })),
  ),
  Squeeze: [
    move('Squeeze', [2, 1, 3, 1], (b, x) => b.op.Squeeze(x, [1, -1])),
    move('Squeeze-11', [2, 1, 3], (b, x) => b.op.Squeeze(x, [1]), {
      opset: 11,
      variants: ['static', 'symbolic'],
    }),
  ],
  Unsqueeze: [
    move('Unsqueeze', [2, 3], (b, x) => b.op.Unsqueeze(x, [0, 3])),
    move('Unsqueeze-11', [2, 3], (b, x) => b.op.Unsqueeze(x, [1]), {
      opset: 11,
      variants: ['static', 'symbolic'],
    }),
  ],
  Transpose: [
    move('Transpose', [2, 3, 4], (b, x) => b.op.Transpose(x, { perm: [2, 0, 1] })),
    move('Transpose default', [2, 3, 4], (b, x) => b.op.Transpose(x)),
  ],
  Expand: [
    move('Expand', [3, 1], (b, x) => b.op.Expand(x, [2, 3, 4])),
    move('Expand run-time', [3, 1], (b, x, [shape]) => b.op.Expand(x, shape!), {
      others: [ids([2, 1, 4], [3])],
    }),
  ],
  Concat: [
    move('Concat', [2, 3, 4], (b, x, [y]) => b.op.Concat([x, y!, x], { axis: 1 }), {
      others: [{ shape: [2, 2, 4] }],
    }),
    move('Concat with a constant', [2, 3], (b, x) =>
      b.op.Concat(
        [b.op.Expand(b.scalar(1, 'float64'), [2, 2]), x, b.op.Expand(b.scalar(1, 'float64'), [2, 1])],
        { axis: -1 },
      ),
    ),
  ],
  Split: [
    move('Split', [2, 7], (b, x) => b.op.Split(x, [2, 4, 1], { axis: 1 }, 3)),
    move('Split with unused parts', [2, 7], (b, x) => b.op.Split(x, [2, 4, 1], { axis: -1 }, 3)[1]!),
  ],
  Slice: [
    move('Slice', [4, 5, 6], (b, x) => b.op.Slice(x, [1, -3], [3, 6], [0, 2])),
    move('Slice to the end', [4, 6], (b, x) => b.op.Slice(x, [2], [1e9], [1])),
    move('Slice from outside', [4, 6], (b, x) => b.op.Slice(x, [-1e9], [3], [1])),
    move('Slice strided', [4, 7], (b, x) => b.op.Slice(x, [5, 3], [0, -1e9], [1, 0], [-2, -1])),
    move('Slice run-time', [4, 7], (b, x, [starts]) => b.op.Slice(x, starts!, [6], [1]), {
      others: [ids([2], [1])],
    }),
  ],
  Pad: [
    move('Pad', [2, 3], (b, x) => b.op.Pad(x, [1, 0, 2, 1])),
    move('Pad with crop', [3, 4], (b, x) => b.op.Pad(x, [-1, 0, 2, 1])),
    move('Pad run-time', [2, 3], (b, x, [pads]) => b.op.Pad(x, pads!), { others: [ids([1, 0, 2, 1], [4])] }),
    move('Pad value', [2, 3], (b, x, [value]) => b.op.Pad(x, [1, 0, 2, 1], value), {
      others: [{ shape: [] }],
    }),
  ],
  Tile: [
    move('Tile', [2, 3], (b, x) => b.op.Tile(x, [2, 3])),
    move('Tile run-time', [2, 3], (b, x, [repeats]) => b.op.Tile(x, repeats!), {
      others: [ids([3, 1], [2])],
    }),
  ],
  Trilu: [
    move('Trilu upper', [2, 4, 3], (b, x) => b.op.Trilu(x, b.scalar(1, 'int64'))),
    move('Trilu lower', [4, 4], (b, x) => b.op.Trilu(x, null, { upper: 0 })),
  ],
  'com.microsoft.Trilu': [
    move('ms Trilu', [2, 4, 3], (b, x) => b.microsoft.Trilu(x, b.scalar(-1, 'int64'), { upper: 0 })),
  ],
  DepthToSpace: [move('DepthToSpace', [1, 8, 2, 3], (b, x) => b.op.DepthToSpace(x, { blocksize: 2 }))],
  SpaceToDepth: [move('SpaceToDepth', [1, 2, 4, 6], (b, x) => b.op.SpaceToDepth(x, { blocksize: 2 }))],
  Gather: [
    move('Gather rows', [5, 3], (b, x, [i]) => b.op.Gather(x, i!), {
      others: [ids([1, 4, 1, 0, 0, -1], [2, 3])],
    }),
    move('Gather middle', [2, 5, 3], (b, x, [i]) => b.op.Gather(x, i!, { axis: 1 }), {
      others: [ids([1, 4, 1], [3])],
    }),
    move('Gather last', [2, 3, 5], (b, x, [i]) => b.op.Gather(x, i!, { axis: -1 }), {
      others: [ids([1, 4, 1, 2], [2, 2])],
    }),
    move('Gather one', [2, 5, 3], (b, x) => b.op.Gather(x, b.scalar(0, 'int64'), { axis: 1 })),
    move('Gather one from the end', [2, 5, 3], (b, x) => b.op.Gather(x, b.scalar(-2, 'int64'), { axis: 1 })),
    move('Gather one at run time', [2, 5, 3], (b, x, [i]) => b.op.Gather(x, i!, { axis: 1 }), {
      others: [ids([3], [])],
    }),
  ],
  GatherElements: [
    move('GatherElements', [3, 4], (b, x, [i]) => b.op.GatherElements(x, i!, { axis: 1 }), {
      others: [ids([0, 0, 3, 1, 2, -1], [3, 2])],
    }),
  ],
  GatherND: [
    move('GatherND', [3, 4, 2], (b, x, [i]) => b.op.GatherND(x, i!), {
      others: [ids([0, 1, 2, 3, 0, 1], [3, 2])],
    }),
  ],
  ScatterElements: ['none', 'add'].map((reduction) =>
    move(
      `ScatterElements ${reduction}`,
      [3, 4],
      (b, x, [i, u]) => b.op.ScatterElements(x, i!, u!, { axis: 1, reduction }),
      {
        others: [ids([0, 2, 3, 1, 2, 0], [3, 2]), { shape: [3, 2] }],
      },
    ),
  ),
  ScatterND: ['none', 'add'].map((reduction) =>
    move(`ScatterND ${reduction}`, [4, 3], (b, x, [i, u]) => b.op.ScatterND(x, i!, u!, { reduction }), {
      others: [ids([3, 1], [2, 1]), { shape: [2, 3] }],
    }),
  ),
  TopK: [
    {
      name: 'TopK',
      inputs: [{ shape: [3, 5], draw: draw.distinct }],
      build: (b, [x]) => b.op.TopK(x!, b.ints([2]), { axis: -1 })[0],
    },
  ],
};
