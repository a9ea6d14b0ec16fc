/** What ONNX Runtime's own artifact generator wrote for a two-layer classifier, read and trained as it is, and made again. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { writeAdapterRecord } from '../../passes/adapter-record.js';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import { ortTrainingArtifacts } from '../../runtime/ort-training/artifacts.js';
import { readCheckpoint } from '../../runtime/ort-training/read-checkpoint.js';
import { checkpointBytes, nominalOf } from '../../runtime/ort-training/write-checkpoint.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { formatType, type ValueType } from '../../src/types.js';
import { goldenPath } from '../helpers/fixtures.js';
import { installed, openFiles, openTraining, trainingRuntime } from './training-runtime.js';

const golden = goldenPath('ort-training');
const file = (name: string): string => `${golden}/${name}`;
const PARAMS = ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias'];

/** The classifier without a loss, with the parameters of the golden checkpoint, all of which train. */
function classifier(): Model {
  const model = parseModel(`
<ir_version: 7, opset_import: ["": 14]>
torch_jit (float["batch",784] "input-0") => (float["batch",10] "output-0")
<float[500,784] "fc1.weight" = ["location": "absent"], float[500] "fc1.bias" = ["location": "absent"],
 float[10,500] "fc2.weight" = ["location": "absent"], float[10] "fc2.bias" = ["location": "absent"]>
{
  h = Gemm <transB = 1> ("input-0", "fc1.weight", "fc1.bias")
  r = Relu(h)
  "output-0" = Gemm <transB = 1> (r, "fc2.weight", "fc2.bias")
}`);
  const { trainable } = readCheckpoint(file('checkpoint.ckpt'));
  for (const value of model.graph.initializers) {
    const tensor = trainable.get(value.name ?? '');
    if (tensor !== undefined) value.tensor = tensor;
  }
  const param = (key: string) => {
    const shape = [...(trainable.get(key)?.dims ?? [])];
    return {
      key,
      name: key,
      shape,
      dtype: 'float32' as const,
      trainable: true,
      group: 'default',
      lrScale: 1,
      weightDecay: true,
    };
  };
  writeAdapterRecord(model, {
    version: 2,
    entries: [{ method: 'full', config: {} }],
    seed: 0,
    sites: ['fc1', 'fc2'].map((path) => ({
      entry: 0,
      path,
      kind: 'linear',
      config: {},
      params: { weight: param(`${path}.weight`), bias: param(`${path}.bias`) },
    })),
  });
  return model;
}

const typed = (type: ValueType | undefined): string =>
  formatType(type).replace(/[A-Za-z_-]+\d_dim\d|input-0_dim\d|output-0_dim\d|batch/g, '?');
const signature = ({ graph }: Model) => ({
  inputs: graph.inputs.map(({ name }) => name),
  types: graph.inputs.map(({ type }) => typed(type)),
  outputs: graph.outputs.map(({ name }) => name),
});

/** The golden file of one input: a TensorProto, of which the last 4·n bytes are the numbers. */
function batch(): Float32Array {
  const bytes = readFileSync(file('input-0.in'));
  const count = 784 * Math.floor(bytes.length / (784 * 4));
  return new Float32Array(Uint8Array.from(bytes.subarray(bytes.length - 4 * count)).buffer);
}

describe.skipIf(golden === undefined)("the generator's checkpoint", () => {
  it('is read whole, and ours of the same parameters is read alike', async () => {
    const theirs = readCheckpoint(file('checkpoint.ckpt'));
    expect([...theirs.trainable.keys()].sort()).toEqual([...PARAMS].sort());
    expect(theirs.frozen.size).toBe(0);
    expect(theirs.trainable.get('fc1.weight')?.dims).toEqual([500, 784]);
    const ours = readCheckpoint(await checkpointBytes(theirs));
    for (const [name, { dtype, dims, data }] of theirs.trainable) {
      const copy = ours.trainable.get(name);
      expect([copy?.dtype, copy?.dims]).toEqual([dtype, dims]);
      expect(Buffer.compare(copy!.data.read(0, data.byteLength), data.read(0, data.byteLength))).toBe(0);
    }
  });

  it('has a nominal twin that is read, and made, alike', async () => {
    const theirs = readCheckpoint(file('nominal_checkpoint'));
    expect(theirs.nominal).toBe(true);
    const ours = readCheckpoint(await checkpointBytes(nominalOf(readCheckpoint(file('checkpoint.ckpt')))));
    const entries = (names: typeof ours.trainable) =>
      [...names].map(([name, { dtype, dims }]) => [name, dtype, dims]).sort();
    expect(entries(ours.trainable)).toEqual(entries(theirs.trainable));
    expect(ours.nominal).toBe(true);
  });
});

describe.skipIf(golden === undefined)("the generator's models", () => {
  const emitted = () =>
    emitOrtTraining(classifier(), { loss: 'classification', lossConfig: { output: 'output-0' } });

  it('have the inputs and outputs that ours have, name by name', () => {
    const { training, evaluation, optimizer } = emitted();
    const theirs = signature(readModel(file('training_model.onnx')));
    const ours = signature(training);
    expect(ours.inputs).toEqual(theirs.inputs);
    // Labels are int32 there and int64 here.
    expect(ours.types.map((type) => type.replace('int64[?]', 'int32[?]')).slice(1)).toEqual(
      theirs.types.slice(1),
    );
    expect(ours.outputs.slice(1)).toEqual(theirs.outputs.slice(1));
    expect(signature(evaluation).inputs).toEqual(signature(readModel(file('eval_model.onnx'))).inputs);
    const adamw = readModel(file('adamw.onnx'));
    expect(signature(optimizer).inputs).toEqual(signature(adamw).inputs);
    expect(signature(optimizer).types).toEqual(signature(adamw).types);
  });

  it('have the accumulators and the optimizer that ours have', () => {
    const { training, optimizer } = emitted();
    const theirs = readModel(file('training_model.onnx'));
    const accumulators = ({ graph }: Model) =>
      [...graph.nodes()]
        .filter(({ op }) => op === 'InPlaceAccumulatorV2')
        .map((node) => [
          node.name,
          node.domain,
          node.inputs.map((v) => v?.name),
          node.outputs.map((v) => v?.name),
        ]);
    expect(accumulators(training)).toEqual(accumulators(theirs));
    const update = ({ graph }: Model) => {
      const node = [...graph.nodes()].find(({ op }) => op === 'AdamWOptimizer');
      return [
        node?.domain,
        node?.inputs.slice(1).map((v) => v?.name),
        [...(node?.attributes.keys() ?? [])].sort(),
      ];
    };
    expect(update(optimizer)).toEqual(update(readModel(file('adamw.onnx'))));
  });

  it.skipIf(!installed)('train as they are, and ours beside them to the same losses', async () => {
    const { Tensor } = await trainingRuntime();
    const x = batch();
    const rows = x.length / 784;
    const labels = Array.from({ length: rows }, (_, i) => i % 10);
    const course = async (session: Awaited<ReturnType<typeof openFiles>>, wide: boolean) => {
      const given = {
        'input-0': new Tensor('float32', x, [rows, 784]),
        labels: wide
          ? new Tensor('int64', BigInt64Array.from(labels, BigInt), [rows])
          : new Tensor('int32', Int32Array.from(labels), [rows]),
      };
      const losses: number[] = [];
      for (let t = 0; t < 5; t++) {
        const outputs = await session.runTrainStep(given);
        losses.push(Number(Object.values(outputs)[0]?.data[0]));
        await session.runOptimizerStep();
        await session.lazyResetGrad();
      }
      await session.release();
      return losses;
    };
    const theirs = await course(
      await openFiles({
        checkpointState: readFileSync(file('checkpoint.ckpt')),
        trainModel: readFileSync(file('training_model.onnx')),
        optimizerModel: readFileSync(file('adamw.onnx')),
      }),
      false,
    );
    const model = classifier();
    const ours = emitOrtTraining(model, {
      loss: 'classification',
      lossConfig: { output: 'output-0' },
      adamMode: 'huggingface',
      optimizerConfig: { eps: 1e-6, weightDecay: 0 },
    });
    const again = await course(await openTraining(await ortTrainingArtifacts(ours, model)), true);
    expect(theirs.at(-1)).toBeLessThan(theirs[0]! / 2);
    for (const [i, loss] of again.entries()) expect(Math.abs(loss / theirs[i]! - 1)).toBeLessThan(1e-5);
  });
});
