/** CTC against torch.nn.CTCLoss, values and gradients (`fixtures/generate/ctc_reference.py`). */
import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { lossById } from '../../passes/losses/index.js';
import { PublicNames } from '../../passes/targets/names.js';
import { addObjective, differentiate } from '../../passes/targets/objective.js';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { tensorType } from '../../src/types.js';
import { fixturePath } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';

interface Case {
  readonly name: string;
  readonly frames: number;
  readonly classes: number;
  readonly blank: number;
  readonly labels: readonly (readonly number[])[];
  readonly lengths?: readonly number[];
  readonly scores: readonly number[];
  readonly losses: readonly (number | null)[];
  readonly gradient: readonly number[];
}

const cases = JSON.parse(readFileSync(fixturePath('reference', 'losses', 'ctc.json'), 'utf8')) as Case[];

interface Form {
  readonly dtype: 'float32' | 'float64';
  readonly symbolic: boolean;
  /** What the model returns: the scores, a Softmax of them, or exponentials that no Softmax made. */
  readonly output?: 'softmax' | 'probabilities';
}

function model({ frames, classes, blank, labels, lengths }: Case, { dtype, symbolic, output }: Form): Model {
  const made = new Model(new Graph());
  made.opsets.set('', 18);
  const shape = symbolic ? ['batch', 'frames', classes] : [labels.length, frames, classes];
  const x = made.graph.addInput(new Value({ name: 'x', type: tensorType(dtype, shape) }));
  const b = new Builder(made);
  const { op } = b;
  const exponentials = () => op.Exp(op.Sub(x, op.ReduceMax(x, [2], { keepdims: 1 })));
  const results = {
    scores: () => op.Identity(x),
    softmax: () => op.Softmax(x, { axis: 2 }),
    probabilities: () => op.Div(exponentials(), op.ReduceSum(exponentials(), [2], { keepdims: 1 })),
  };
  made.graph.addOutput('y', results[output ?? 'scores']());
  applyEdit({
    label: 'model',
    graph: made.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  const config = {
    blank,
    ...(lengths === undefined ? {} : { lengths: 'lengths' }),
    ...(output === 'probabilities' ? { input: 'probabilities' } : {}),
  };
  const objective = addObjective(made, lossById('ctc').configure(config), new PublicNames(made), new Map());
  const gradient = differentiate(made, objective, [x], { mean: false, lossScale: 1 }).get(x);
  if (gradient === undefined) throw new Error('no gradient');
  made.graph.clearOutputs();
  made.graph.addOutput('total', objective.built.total);
  made.graph.addOutput('weight', objective.built.weight);
  for (const metric of objective.built.metrics ?? []) made.graph.addOutput(metric.name, metric.value);
  made.graph.addOutput('gradient', gradient);
  return made;
}

async function check(given: Case, form: Form, tolerance: number): Promise<void> {
  const { scores, labels, lengths, frames, classes } = given;
  const width = Math.max(...labels.map((row) => row.length)) + 1;
  const padded = labels.flatMap((row) => [...row, ...new Array<number>(width - row.length).fill(-100)]);
  const Floats = form.dtype === 'float32' ? Float32Array : Float64Array;
  const results = await runModel(model(given, form), {
    x: new ort.Tensor(form.dtype, Floats.from(scores) as Float32Array, [labels.length, frames, classes]),
    labels: new ort.Tensor('int64', BigInt64Array.from(padded, BigInt), [labels.length, width]),
    ...(lengths === undefined
      ? {}
      : { lengths: new ort.Tensor('int64', BigInt64Array.from(lengths, BigInt), [lengths.length]) }),
  });
  const losses = given.losses.filter((loss) => loss !== null);
  const total = losses.reduce((sum, loss) => sum + loss, 0);
  expect(Math.abs(numbers(results.total)[0]! - total) / Math.max(1, total)).toBeLessThan(tolerance);
  expect(numbers(results.weight)).toEqual([losses.length]);
  expect(numbers(results.unaligned)).toEqual([given.losses.length - losses.length]);
  const gradient = numbers(results.gradient);
  const worst = Math.max(...given.gradient.map((wanted, i) => Math.abs(wanted - gradient[i]!)));
  expect(worst).toBeLessThan(tolerance);
}

describe.each(cases.map((one) => [one.name, one] as const))('ctc: %s', (_name, one) => {
  test('float64', () => check(one, { dtype: 'float64', symbolic: false }, 1e-9));
  test('float32, of symbolic sizes', () => check(one, { dtype: 'float32', symbolic: true }, 1e-4));
  test('behind a Softmax', () => check(one, { dtype: 'float32', symbolic: true, output: 'softmax' }, 1e-4));
});

test('ctc of probabilities that the graph does not show as such', () =>
  check(cases[0]!, { dtype: 'float64', symbolic: false, output: 'probabilities' }, 1e-9));

test('ctc reads before a Softmax over classes, which the default axis is since opset 13', () => {
  const reads = (opset: number, attributes: { axis?: number }): boolean => {
    const made = new Model(new Graph());
    made.opsets.set('', opset);
    const x = made.graph.addInput(new Value({ name: 'x', type: tensorType('float32', [2, 5, 4]) }));
    const b = new Builder(made);
    const [y] = b.call('Softmax', [x], attributes) as [Value];
    applyEdit({ label: 'model', graph: made.graph, add: { nodes: b.nodes, at: 'end' } });
    made.graph.addOutput('y', y);
    addObjective(made, lossById('ctc').configure({}), new PublicNames(made), new Map());
    return y.users.size === 0;
  };
  expect([reads(18, { axis: 2 }), reads(18, {}), reads(18, { axis: 1 })]).toEqual([true, true, false]);
  expect([reads(11, { axis: 2 }), reads(11, { axis: -1 }), reads(11, {})]).toEqual([true, true, false]);
});

test('a row without a label counts nothing', async () => {
  const one = cases[0]!;
  const results = await runModel(model(one, { dtype: 'float32', symbolic: true }), {
    x: new ort.Tensor('float32', Float32Array.from(one.scores), [3, one.frames, one.classes]),
    labels: new ort.Tensor(
      'int64',
      BigInt64Array.from([1, 2, 3, -100, -100, -100, 2, -100, -100], BigInt),
      [3, 3],
    ),
  });
  expect(numbers(results.weight)).toEqual([2]);
  expect(numbers(results.total)[0]).toBeCloseTo(one.losses[0]! + one.losses[2]!, 4);
  const row = one.frames * one.classes;
  expect(
    numbers(results.gradient)
      .slice(row, 2 * row)
      .every((value) => value === 0),
  ).toBe(true);
});
