/** Every model of the fixtures that trains is taken by ONNX Runtime's training API, and learns there. */
import { describe, expect, it } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import { ortTrainingArtifacts } from '../../runtime/ort-training/artifacts.js';
import { randomInputs } from '../../runtime/random-inputs.js';
import { walkNodes } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { decodeNumbers } from '../../src/literals.js';
import { readModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { checkedFixtures } from '../models/fixtures.js';
import {
  installed,
  openTraining,
  trainingRuntime,
  type WebTensor,
} from '../ort-training/training-runtime.js';

/** Operators that came after ONNX Runtime 1.19. */
const LATER = new Set(['GatherBlockQuantized']);
const TYPED = { float32: Float32Array, int32: Int32Array, bool: Uint8Array } as const;

// bfloat16 has no kernels on the CPU, and the web's runtime reads no data files.
const fixtures = (['models', 'zoo', 'quantised'] as const).flatMap((folder) =>
  checkedFixtures(
    folder,
    ({ name, dtype, limits }) =>
      dtype !== 'bfloat16' && limits?.train === undefined && !name.endsWith('.external'),
  ),
);

describe.skipIf(!installed)('the training API', () => {
  it.each(fixtures.map((fixture) => [`${fixture.folder}/${fixture.name}`, fixture] as const))(
    'trains %s',
    async (_, fixture) => {
      const { path, loss, fixed, sizes } = fixture;
      const model = readModel(path);
      if ([...walkNodes(model.graph)].some(({ op }) => LATER.has(op))) return;
      insert(model, { method: 'lora', config: { rank: 2, alpha: 3 }, targeting: { targets: 'all-linear' } });
      const emitted = emitOrtTraining(model, {
        loss: loss?.id ?? 'mse',
        ...(loss === undefined ? {} : { lossConfig: loss.config }),
        ...(fixed === undefined ? {} : { inputs: fixed }),
        schedule: { id: 'constant', learningRate: 0.02 },
        frozen: 'checkpoint',
      });
      const { Tensor } = await trainingRuntime();
      const given = randomInputs(model, { ...(sizes === undefined ? {} : { sizes }), seed: 1 });
      const random = randomStream(2, 'labels');
      const leading = new Map<string, number>();
      for (const { name, shape } of emitted.inputs)
        for (const [axis, dim] of shape.entries())
          if (typeof dim === 'string') leading.set(dim, given[name]?.dims[axis] ?? leading.get(dim) ?? 4);
      const feeds: Record<string, WebTensor> = {};
      for (const { name, dtype, shape, role } of emitted.inputs) {
        const dims = shape.map((dim) => (typeof dim === 'number' ? dim : (leading.get(dim ?? '') ?? 4)));
        const count = dims.reduce((product, dim) => product * dim, 1);
        const input = given[name];
        const values =
          role === 'label' || input === undefined
            ? Array.from({ length: count }, () => (dtype === 'int64' ? Math.floor(3 * random()) : random()))
            : Array.from(decodeNumbers(tensorOfBytes(input.dtype, input.dims, input.data)), Number);
        const data =
          dtype === 'int64'
            ? BigInt64Array.from(values, BigInt)
            : TYPED[dtype as keyof typeof TYPED].from(values);
        feeds[name] = new Tensor(dtype, data, input?.dims ?? dims);
      }
      const session = await openTraining(await ortTrainingArtifacts(emitted, model));
      const losses: number[] = [];
      for (let t = 0; t < 6; t++) {
        losses.push(Number((await session.runTrainStep(feeds)).loss?.data[0]));
        await session.runOptimizerStep();
        await session.lazyResetGrad();
      }
      await session.release();
      expect(losses.at(-1)).toBeLessThan(losses[0]!);
    },
  );
});
