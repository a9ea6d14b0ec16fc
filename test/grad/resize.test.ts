/** Gradients of Resize against torch's (`fixtures/generate/resize_reference.py`), and what is refused. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { Graph, Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type Shape, tensorType } from '../../src/types.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { float32 } from '../targets/driver.js';

type Attributes = Readonly<Record<string, string | number>>;

interface Case {
  readonly torch: { readonly mode: string };
  readonly onnx: Attributes;
  readonly scales?: readonly number[];
  readonly sizes?: readonly number[];
  readonly shape: readonly number[];
  readonly outShape: readonly number[];
  readonly x: readonly number[];
  readonly r: readonly number[];
  readonly gradient: readonly number[];
}

const cases = JSON.parse(
  readFileSync(fixturePath('reference', 'gradients', 'resize.json'), 'utf8'),
) as Case[];

/** The gradient by x of Σ y·r as output `g`. */
function model(shape: Shape, attributes: Attributes, { scales, sizes }: Partial<Case>): Model {
  const made = new Model(new Graph());
  made.opsets.set('', 20);
  const x = made.graph.addInput(new Value({ name: 'x', type: tensorType('float32', shape) }));
  const b = new Builder(made);
  const factors = scales === undefined ? null : b.constant(tensorOf('float32', [4], [1, 1, ...scales]));
  const inputs = [x, null, factors, ...(sizes === undefined ? [] : [b.ints([1, 2, ...sizes])])];
  const y = b.call('Resize', inputs, attributes)[0] as Value;
  const r = made.graph.addInput(new Value({ name: 'r', ...(y.type && { type: y.type }) }));
  const loss = b.op.ReduceSum(b.op.Mul(y, r), null, { keepdims: 0 });
  applyEdit({
    label: 'model',
    graph: made.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  const { edit, gradients } = backward(made, { loss, wrt: [x] });
  applyEdit(edit);
  made.graph.addOutput('g', gradients.get(x) as Value);
  return made;
}

it.each(cases.map((one) => [`${one.torch.mode} ${JSON.stringify(one.sizes ?? one.scales)}`, one] as const))(
  'agrees with torch: %s',
  async (_name, one) => {
    const feeds = { x: float32([...one.x], [...one.shape]), r: float32([...one.r], [...one.outShape]) };
    const { g } = await runModel(model(one.shape, one.onnx, one), feeds);
    const worst = Math.max(...numbers(g).map((value, i) => Math.abs(value - one.gradient[i]!)));
    expect(g?.dims).toEqual(one.shape);
    // float32 weights of up to four terms along each axis.
    expect(worst).toBeLessThan(64 * 2 ** -24 * Math.max(...one.gradient.map(Math.abs)));
  },
);

it('costs one average where pixels are repeated, whatever the size of the image', () => {
  const ops = (attributes: Attributes) =>
    [...model(['n', 2, 'h', 'w'], attributes, { scales: [2, 4] }).graph.nodes()].map(({ op }) => op);
  const repeats = { coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' };
  expect(ops(repeats)).toContain('AveragePool');
  expect(ops(repeats)).not.toContain('MatMul');
  expect(ops({ ...repeats, nearest_mode: 'ceil' })).toContain('MatMul');
});

it.each<[Attributes, RegExp]>([
  [{ coordinate_transformation_mode: 'tf_crop_and_resize' }, /tf_crop_and_resize cuts a region out/],
  [{ keep_aspect_ratio_policy: 'not_larger' }, /keep_aspect_ratio_policy/],
])('refuses %j by name', (attributes, message) => {
  expect(() => model([1, 2, 3, 4], attributes, { sizes: [5, 6] })).toThrow(
    expect.objectContaining({ code: 'E_NO_GRADIENT', message: expect.stringMatching(message) }),
  );
});
