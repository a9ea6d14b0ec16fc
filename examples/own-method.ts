/**
 * A method of one's own: two formulas, nothing else. It scales the output columns of a weight, W' = W · diag(1 + g·d),
 * with d = 0 at the start:
 * (IA)³ with its factor on the weight. Insertion, gradients, training, adapter files, folding and its proof come from the package.
 *
 * The file is a config module too: `peft-compile insert … --method column-scale --config own-method.js`.
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  datasetOf,
  defineConfig,
  defineMethod,
  emit,
  fold,
  insert,
  load,
  type Ops,
  train,
  type Value,
  z,
  zeros,
} from 'peft-compile';

const scaled = (op: Ops, w: Value, d: Value, gain: number) => op.Mul(w, op.Add(op.Mul(d, gain), 1));

export const columnScale = defineMethod({
  id: 'column-scale',
  summary: 'One trained factor per output column of a linear weight',
  paper: {
    title: 'Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning',
    arxiv: '2205.05638',
  },
  config: z.strictObject({
    gain: z.number().positive().default(1).describe('Factor g on the trained vector'),
  }),
  sites: {
    linear: {
      params: ({ outDim }) => ({ d: { shape: [outDim], init: zeros, weightDecay: false } }),
      attach: (op, { w }, { d }, { gain }) => ({ w: scaled(op, w, d, gain) }),
      fold: (op, { w }, { d }, { gain }) => ({ w: scaled(op, w, d, gain) }),
    },
  },
});

export default defineConfig({ methods: [columnScale] });

const base = fileURLToPath(new URL('../fixtures/models/gpt2.ts.dynamic.onnx', import.meta.url));

export async function main(out?: string) {
  const folder = out ?? (await mkdtemp(join(tmpdir(), 'peft-compile-')));
  const model = load(base);
  const { record } = await insert(model, {
    method: columnScale,
    config: { gain: 3 },
    targeting: { targets: ['c_fc', 'c_proj'] },
  });
  const artifacts = await emit(model, {
    target: 'step',
    loss: 'causal-lm',
    optimizer: 'sgd',
    optimizerConfig: { momentum: 0.9 },
    schedule: { id: 'constant', learningRate: 0.05 },
  });
  const counting = Array.from({ length: 8 }, (_, row) => {
    const input_ids = Array.from({ length: 10 }, (_, k) => (row + 3 * k) % 40);
    return { input_ids, labels: input_ids };
  });
  const { losses, adapter } = await train({ artifacts, data: datasetOf(counting), epochs: 12, out: folder });
  if (adapter === undefined) throw new Error('Training was interrupted');
  const merged = join(folder, 'merged.onnx');
  const report = await fold({ model: base, adapter, methods: [columnScale], out: merged, verify: true });
  return { record, losses, adapter, report };
}

if (process.argv[1] === import.meta.filename) console.log(await main());
