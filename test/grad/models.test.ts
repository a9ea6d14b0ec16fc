/**
 * Gradients of whole exported models by their own parameters against torch (`fixtures/generate/gradient_reference.py`).
 * torch's values are of float64; ours are computed in float32, so what is left is rounding through the depth of the model.
 */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { applyEdit } from '../../passes/edit.js';
import { backward } from '../../passes/grad/backward.js';
import { lossById } from '../../passes/losses/index.js';
import { normalizeForTraining } from '../../passes/normalize/index.js';
import { runPasses } from '../../passes/runner.js';
import { findWeightSites } from '../../passes/sites/find.js';
import { PublicNames } from '../../passes/targets/names.js';
import { addObjective } from '../../passes/targets/objective.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import type { Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, gradientsPath, type ModelFixture, modelFixtures } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';

/** Relative norm; float32 has 6e-8, and torch's own float32 gradients are off by up to 1e-6. */
const TOLERANCE = 2e-5;
/** GPT-2's Conv1D keeps [in, out]; torch's Linear keeps [out, in]. */
const STORES_IN_OUT = new Set(['gpt2']);

/** Operators that CPU, CUDA and WebGPU all have in ONNX Runtime, and Shape, which runs on the host anyway. */
const PORTABLE = new Set(
  `Abs Add And Cast Clip Concat Conv ConvTranspose CumSum Div Einsum Equal Erf Exp Expand Gather GatherElements GatherND
   Gelu Gemm Greater GreaterOrEqual Identity LayerNormalization Less LessOrEqual Log MatMul Max Min Mul Neg Not Pad Pow
   Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceSum ReduceSumSquare Relu Reshape ScatterElements ScatterND Shape
   Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where`.split(
    /\s+/,
  ),
);

interface Parameter {
  readonly name: string;
  readonly value: Value;
  /** Our gradient has to be transposed to torch's layout. */
  readonly transposed: boolean;
}

function parametersOf(model: Model, fixture: ModelFixture, names: ReadonlySet<string>): Parameter[] {
  const found = new Map<string, Parameter>();
  for (const value of model.graph.initializers) {
    const name = value.name ?? '';
    if (names.has(name)) found.set(name, { name, value, transposed: false });
  }
  const weights = new Map<string, Value>();
  for (const site of findWeightSites(model)) {
    if (site.kind === 'linear' && site.packedIn !== undefined) continue;
    const { value, transposed } = site.weight;
    const name = `${site.path}.weight`;
    weights.set(name, value);
    const torch = site.kind === 'embedding' ? false : !STORES_IN_OUT.has(fixture.architecture);
    if (names.has(name)) found.set(name, { name, value, transposed: torch !== transposed });
    const bias = site.kind === 'linear' ? site.bias?.value : undefined;
    if (bias !== undefined && names.has(`${site.path}.bias`))
      found.set(`${site.path}.bias`, { name: `${site.path}.bias`, value: bias, transposed: false });
  }
  // torch adds up the gradients of a tied parameter; an export with a copy per use has them apart.
  const apart = fixture.tied
    .filter((group) => new Set(group.map((name) => weights.get(name))).size > 1)
    .flat();
  return [...found.values()].filter(({ name, value }) => !apart.includes(name) && value.users.size > 0);
}

function transpose(data: readonly number[], rows: number, columns: number): number[] {
  return Array.from(
    { length: data.length },
    (_, i) => data[(i % rows) * columns + Math.floor(i / rows)] ?? 0,
  );
}

function difference(a: readonly number[], b: readonly number[]): number {
  return Math.hypot(...a.map((value, i) => value - (b[i] ?? 0))) / Math.hypot(...b);
}

async function check(fixture: ModelFixture): Promise<void> {
  const reference = readSafetensors(gradientsPath(fixture.architecture));
  const read = async (name: string) => {
    const tensor = reference.tensors.get(name);
    if (tensor === undefined) throw new Error(`no tensor ${name}`);
    return { dims: tensor.dims, data: Array.from(numbersOf(await loadTensor(tensor)), Number) };
  };
  const names = new Set(
    [...reference.tensors.keys()].filter((key) => key.startsWith('gradient64.')).map((key) => key.slice(11)),
  );
  const model = readModel(fixturePath('models', `${fixture.name}.onnx`));
  inferModel(model);
  const parameters = parametersOf(model, fixture, names);
  const values = new Map<Value, Value>(parameters.map(({ value }) => [value, value]));
  runPasses(model, normalizeForTraining);
  const loss = lossById(fixture.task).configure({ output: fixture.logits });
  const objective = addObjective(model, loss, new PublicNames(model), new Map());
  const wrt = [...values.keys()].filter((value) => model.graph.initializers.has(value));
  const { edit, gradients } = backward(model, { loss: objective.loss, wrt, unreachable: 'zeros' });
  // Behind the embeddings every shape is decided: a position table cut to min(24, sequence) rows is not.
  const layers = wrt.filter((value) => [...value.users].every((user) => user.op !== 'Gather'));
  const inner = backward(model, { loss: objective.loss, wrt: layers, unreachable: 'zeros' }).edit;
  const foreign = (inner.add?.nodes ?? []).filter(({ op, domain }) => domain !== '' || !PORTABLE.has(op));
  expect(foreign.map((node) => node.label)).toEqual([]);
  applyEdit(edit);
  const { graph } = model;
  graph.clearOutputs();
  graph.addOutput('loss', objective.loss);
  const outputs = new Map<Value, string>();
  [...gradients].forEach(([value, gradient], i) => {
    outputs.set(value, `g${i}`);
    graph.addOutput(`g${i}`, gradient);
  });
  const feeds: Record<string, ort.Tensor> = {};
  for (const { name } of graph.inputs) {
    if (name === undefined) continue;
    const { data, dims } = await read(`batch.${name}`);
    feeds[name] = new ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims);
  }
  const results = await runModel(model, feeds);
  const torchLoss = (await read('loss64')).data[0] ?? Number.NaN;
  expect(Math.abs((numbers(results.loss)[0] ?? 0) - torchLoss) / torchLoss).toBeLessThan(1e-5);
  let compared = 0;
  for (const { name, value, transposed } of parameters) {
    const output = outputs.get(value);
    if (output === undefined) continue;
    const ours = numbers(results[output]);
    const torch = await read(`gradient64.${name}`);
    const [rows = 1, columns = 1] = results[output]?.dims ?? [];
    const aligned = transposed ? transpose(ours, rows, columns) : ours;
    expect(difference(aligned, torch.data), `${name} of ${fixture.name}`).toBeLessThan(TOLERANCE);
    compared++;
  }
  // Exporters fold some tables (position embeddings above all) into other constants.
  expect(compared / names.size).toBeGreaterThan(0.6);
}

describe('gradients of exported models', () => {
  // Half-precision exports have other weights, external data needs a session by path, and static shapes add nothing
  // to what the rules' own tests say.
  const fixtures = modelFixtures(
    ({ dtype, externalData, variant }) => dtype === 'float32' && !externalData && variant !== 'static',
  );
  for (const fixture of fixtures) it(fixture.name, () => check(fixture));
});
