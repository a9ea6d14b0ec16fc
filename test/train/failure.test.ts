/** A device that is lost in the middle of a run costs no more than the steps since the last checkpoint. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { emitStep } from '../../passes/targets/step.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { providerOf } from '../../runtime/ep/index.js';
import { ortError } from '../../runtime/ort-errors.js';
import { train } from '../../runtime/train/train.js';
import { refuses } from '../runtime/refuses.js';
import { CLASSES, IN, mlp } from '../targets/mlp.js';

const folder = mkdtempSync(join(tmpdir(), 'failure-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Sixteen points; `lost` sees every reading of one. */
function points(lost: () => void = () => {}): Dataset {
  return {
    source: 'test',
    length: 16,
    example(i) {
      lost();
      const values = Array.from({ length: IN }, (_, j) => Math.sin(3 * i + j));
      const label = { dims: [], values: [i % CLASSES] };
      return {
        where: `example ${i}`,
        tensors: new Map([
          ['x', { dims: [IN], values }],
          ['labels', label],
        ]),
      };
    },
  };
}

it('names the checkpoint, which continues as if nothing had happened', async () => {
  const model = mlp({ fresh: true });
  const artifacts = await artifactsInMemory(emitStep(model, { loss: 'classification' }), model);
  const options = { artifacts, batchSize: 2, maxSteps: 8, checkpointEvery: 2, session: { threads: 1 } };
  const whole = await train({ ...options, data: points(), out: join(folder, 'whole') });

  let started = false;
  let reads = 0;
  const failing = points(() => {
    if (started && ++reads > 10) throw ortError('Device was lost: reset', 'step.onnx', providerOf('webgpu'));
  });
  const out = join(folder, 'lost');
  const run = train({
    ...options,
    data: failing,
    out,
    onEvent: ({ type }) => {
      if (type === 'start') started = true;
    },
  });
  await refuses(run, 'E_RUNTIME', /device of WebGPU was lost.*step-00000004\.safetensors is whole; --resume/);
  const rest = await train({ ...options, data: points(), out, resume: true });
  expect(rest.losses).toEqual(whole.losses.slice(4));
});
