/** What the ort-training target emits for every model, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { insert } from '../../passes/insert/insert.js';
import { defineOptimizer } from '../../passes/optimizers/index.js';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { ortTrainingArtifacts } from '../../runtime/ort-training/artifacts.js';
import { PeftCompileError } from '../../src/errors.js';
import { walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { decodeModel, encodeModel, readModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { modelFixture, modelFixtures } from '../helpers/fixtures.js';
import { mlp } from '../targets/mlp.js';
import { byStepTarget, byTrainingApi, difference, feeds } from './agreement.js';
import { adapted, batch, LORA } from './cases.js';
import { installed, openTraining } from './training-runtime.js';

const CLASSES = { loss: 'classification' } as const;

function refusal(model: Model, options: Partial<OrtTrainingOptions> = {}): PeftCompileError {
  try {
    emitOrtTraining(model, { ...CLASSES, ...options });
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
  throw new Error('It was emitted');
}

describe('the ort-training target', () => {
  it('leaves the adapted model alone, and emits the same bytes twice', () => {
    const model = mlp({ dropout: 0.5 });
    const before = encodeModel(model);
    const emit = () => emitOrtTraining(model, CLASSES);
    const [first, second] = [emit(), emit()];
    expect(encodeModel(model)).toEqual(before);
    for (const name of ['training', 'evaluation', 'optimizer'] as const)
      expect(encodeModel(first[name])).toEqual(encodeModel(second[name]));
  });

  it('names inputs as the runtime knows them, in its order', () => {
    const { training, evaluation, inputs, outputs, evalOutputs } = emitOrtTraining(mlp({ dropout: 0.5 }), {
      ...CLASSES,
      trainOutputs: 'metrics',
    });
    const params = ['fc1.lora_A', 'fc1.lora_B', 'fc2.lora_A', 'fc2.lora_B'];
    const shared = ['x', 'labels', ...params, 'peft_compile.dropout_seed'];
    const names = (model: Model) => model.graph.inputs.map(({ name }) => name);
    expect(names(training)).toEqual([
      ...shared,
      ...params.map((name) => `${name}_grad.accumulation.buffer`),
      'lazy_reset_grad',
    ]);
    expect(names(evaluation)).toEqual(shared);
    expect(inputs.map(({ name, role }) => [name, role])).toEqual([
      ['x', 'input'],
      ['labels', 'label'],
    ]);
    expect(outputs).toEqual(['loss', 'loss_weight', 'correct']);
    expect(training.graph.outputs.map(({ name }) => name)).toEqual([
      ...outputs,
      ...params.map((name) => `${name}_grad.accumulation.out`),
    ]);
    expect(evalOutputs.map(({ name }) => name)).toEqual([...outputs, 'logits']);
  });

  it('stays within opset 21, IR 10 and standard operators but for the accumulators, for every model', () => {
    const fixtures = modelFixtures(({ variant }) => variant !== 'static' && variant !== 'dynamic');
    expect(fixtures.length).toBeGreaterThan(10);
    for (const { path, task } of fixtures) {
      const base = readModel(path);
      const foreign = new Set(
        [...walkNodes(base.graph)].filter(({ domain }) => domain !== '').map(({ op }) => op),
      );
      insert(base, { ...LORA, targeting: { targets: 'all-linear' } });
      const { training, evaluation, optimizer } = emitOrtTraining(base, { loss: task });
      for (const model of [training, evaluation, optimizer]) {
        expect(model.opset('')).toBeLessThanOrEqual(21);
        expect(model.irVersion).toBeLessThanOrEqual(10);
      }
      for (const { domain, op } of walkNodes(training.graph))
        expect(domain === '' || op === 'InPlaceAccumulatorV2' || foreign.has(op)).toBe(true);
    }
  });

  it.skipIf(!installed).each(['gpt2.dynamo.opset23', 'bert.ts.opset11', 'bert.ts.fp16', 'llama.dynamo.sdpa'])(
    'runs %s',
    async (name) => {
      const { task, path } = modelFixture(name);
      const model = readModel(path);
      insert(model, { ...LORA, targeting: { targets: 'all-linear' } });
      const emitted = emitOrtTraining(model, {
        loss: task,
        schedule: { id: 'constant', learningRate: 0.02 },
      });
      const session = await openTraining(await ortTrainingArtifacts(emitted, model));
      const given = await feeds(batch(emitted.inputs, 1));
      const before = Number((await session.runEvalStep(given)).loss?.data[0]);
      for (let t = 0; t < 3; t++) {
        await session.runTrainStep(given);
        await session.runOptimizerStep();
        await session.lazyResetGrad();
      }
      const after = Number((await session.runEvalStep(given)).loss?.data[0]);
      await session.release();
      expect(after).toBeLessThan(before * 0.99);
    },
  );

  it.skipIf(!installed)('takes the rate from the runtime where it is asked to', async () => {
    const model = await adapted(modelFixture('gpt2.ts.static'), {
      ...LORA,
      targeting: { targets: 'all-linear' },
    });
    const schedule = { id: 'linear', learningRate: 1e-3, warmupSteps: 2, totalSteps: 6 };
    const options = { loss: 'causal-lm', schedule, optimizer: 'sgd' } as const;
    const { inputs } = emitOrtTraining(model, options);
    const batches = Array.from({ length: 6 }, (_, t) => [batch(inputs, t)]);
    // 1e-3 is what a session starts with; the peak that is given is not in the graph.
    const theirs = await byTrainingApi(
      model,
      { ...options, rate: 'runtime', schedule: { ...schedule, learningRate: 7 } },
      batches,
    );
    const { losses, params } = difference(theirs, await byStepTarget(model, options, batches));
    expect(losses).toBeLessThan(1e-5);
    expect(params).toBeLessThan(1e-5);
  });

  it('puts weights of the base into the checkpoint when asked to, once', async () => {
    const model = await adapted(modelFixture('bert.dynamo.external'), LORA);
    const [inside, outside] = (['graph', 'checkpoint'] as const).map((frozen) =>
      emitOrtTraining(model, { ...CLASSES, frozen }),
    );
    const bytes = ({ graph }: Model) =>
      [...graph.initializers].reduce((sum, { tensor }) => sum + (tensor?.data.byteLength ?? 0), 0);
    expect(bytes(outside!.training)).toBeLessThan(bytes(inside!.training) / 4);
    const { state } = await ortTrainingArtifacts(outside!, model);
    expect([...state.frozen.keys()]).toEqual(outside!.checkpoint.frozen.map(({ name }) => name));
    const parameters = [...state.trainable.keys(), ...state.frozen.keys()];
    for (const { graph } of [outside!.training, outside!.evaluation])
      expect(graph.inputs.map(({ name }) => name).filter((name) => parameters.includes(name!))).toEqual(
        parameters,
      );
  });

  it('refuses what the runtime cannot carry, and says what to do', () => {
    const ratio = readModel(modelFixture('bert.ts.static').path);
    insert(ratio, { method: 'lora', config: { learningRateRatio: 4 } });
    expect(refusal(ratio)).toMatchObject({ code: 'E_UNSUPPORTED' });
    expect(refusal(ratio).message).toMatch(/one learning rate.*1 for '.*lora_A' and 4 for '.*lora_B'/);
    const decay = mlp();
    expect(refusal(decay, { groups: { B: { weightDecay: false } } }).message).toMatch(/one weight decay/);
    expect(() =>
      emitOrtTraining(decay, {
        ...CLASSES,
        groups: { B: { weightDecay: false } },
        optimizerConfig: { weightDecay: 0 },
      }),
    ).not.toThrow();
    const sgd = { optimizer: 'sgd', optimizerConfig: { momentum: 0.9 } };
    expect(refusal(mlp(), sgd).message).toMatch(/no momentum/);
    const decayed = { optimizer: 'sgd', optimizerConfig: { weightDecay: 0.1 }, clip: 1 };
    expect(refusal(mlp(), decayed).message).toMatch(/cannot combine clipping/);
    const optimizer = defineOptimizer({
      id: 'sign',
      summary: 'none',
      config: z.strictObject({}),
      slots: () => [],
      formula:
        () =>
        ({ param }) => ({ param, state: {} }),
    });
    expect(refusal(mlp(), { optimizer }).message).toMatch(/no optimizer 'sign'/);
    const pruned = readModel(modelFixture('bert.ts.static').path);
    insert(pruned, { method: 'adalora', config: {} });
    expect(refusal(pruned)).toMatchObject({ code: 'E_UNSUPPORTED' });
    expect(refusal(pruned).message).toMatch(/'adalora' changes parameters between steps/);
  });

  it('checks its options', () => {
    const cases: [Partial<OrtTrainingOptions>, string][] = [
      [{ schedule: { id: 'cosine', learningRate: 1 } }, 'number of optimizer steps'],
      [{ schedule: { id: 'square', learningRate: 1 } }, "no schedule 'square'"],
      [{ accumulation: 0 }, 'accumulation is 0'],
      [{ seed: 2 ** 24 }, 'seed is'],
      [{ clip: 0 }, 'clip is 0'],
      [{ lossScale: 0 }, 'lossScale is 0'],
      [{ dropout: 1 }, 'dropout is 1'],
    ];
    for (const [options, message] of cases) {
      const error = refusal(mlp(), options);
      expect(error.code).toBe('E_USAGE');
      expect(error.message).toContain(message);
    }
    expect(refusal(mlp(), { groups: { C: {} } }).code).toBe('E_NO_MATCH');
  });

  it('refuses inputs that the runtime would take for gradients, and renames values that are in the way', async () => {
    const taken = mlp();
    taken.graph.inputs[0]!.name = 'x_grad';
    expect(refusal(taken)).toMatchObject({ code: 'E_UNSUPPORTED', where: 'x_grad' });
    // A value inside with the name of a parameter's gradient, and another with that of the reset flag.
    const model = mlp({ hiddenName: 'fc1.lora_A_grad' });
    const { training } = emitOrtTraining(model, CLASSES);
    const names = [...decodeModel(encodeModel(training)).graph.nodes()].flatMap(({ outputs }) =>
      outputs.map((value) => value?.name),
    );
    expect(new Set(names).size).toBe(names.length);
    expect(training.graph.inputs.at(-1)?.name).toBe('lazy_reset_grad');
  });

  it('says which operators of a newer opset it cannot bring down', () => {
    const emitted = (opset: number, activation: string) => {
      const model = parseModel(`
<ir_version: 11, opset_import: ["": ${opset}]>
g (float["batch",4] x) => (float["batch",3] logits)
<float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
{
  h = ${activation}(x)
  logits = MatMul(h, w)
}`);
      insert(model, { ...LORA, targeting: { targets: 'all-linear' } });
      return emitOrtTraining(model, CLASSES);
    };
    const { training, evaluation } = emitted(24, 'Relu');
    expect([training.opset(''), evaluation.opset(''), training.irVersion]).toEqual([21, 21, 10]);
    expect(() => emitted(24, 'Swish')).toThrow(/opset 21, which has no such form of Swish/);
  });
});
