/**
 * The whole road in code: load an exported BERT classifier, insert LoRA, train it on examples in memory, fold it back
 * into the weights, and compare. Run it with `npm run build && node examples/pipeline.ts` (Node 22.18 or newer).
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { datasetOf, emit, fold, insert, inspect, load, train, verify } from 'peft-compile';

const base = fileURLToPath(new URL('../fixtures/models/bert.ts.dynamic.onnx', import.meta.url));

/** Sentences of one repeated token among others; the class is which of three tokens it is. */
function sentences(count: number, first = 0) {
  return datasetOf(
    Array.from({ length: count }, (_, n) => {
      const i = first + n;
      const labels = i % 3;
      const length = 6 + (i % 4);
      const input_ids = Array.from({ length }, (_, k) =>
        k % 2 === 0 ? 10 + labels : 20 + ((i * 7 + k) % 30),
      );
      return { input_ids, labels };
    }),
  );
}

export async function main(out?: string) {
  const folder = out ?? (await mkdtemp(join(tmpdir(), 'peft-compile-')));
  const model = load(base);

  const { sites, operators } = inspect(model);
  const queries = sites.filter(({ path }) => path.endsWith('.query'));
  const untrainable = operators.filter(({ onTrainablePath, gradient }) => onTrainablePath > 0 && !gradient);

  const { trainable, base: total } = await insert(model, {
    method: 'lora',
    config: { rank: 4, alpha: 8, dropout: 0.05 },
    targeting: { targets: ['query', 'value', 'dense'] },
    seed: 1,
  });
  const adapted = await emit(model, { target: 'adapted', adapterIo: 'inputs' });
  const artifacts = await emit(model, {
    target: 'step',
    loss: 'classification',
    optimizer: 'adamw',
    schedule: { id: 'cosine', learningRate: 2e-2, warmupSteps: 3 },
    clip: 1,
  });
  const { losses, evals, adapter } = await train({
    artifacts,
    data: sentences(36),
    evalData: sentences(12, 36),
    batchSize: 12,
    epochs: 10,
    out: folder,
  });
  if (adapter === undefined) throw new Error('Training was interrupted');

  const merged = join(folder, 'merged.onnx');
  const folded = await fold({ model: base, adapter, out: merged, verify: true });
  const change = await verify(base, merged);

  return {
    queries: queries.map(({ path }) => path),
    untrainable: untrainable.map(({ op }) => op),
    share: trainable / total,
    adapterInputs: adapted.graph.inputs.length - 3,
    losses,
    accuracy: evals.at(-1)?.metrics.correct,
    proof: folded.proof,
    foldError: folded.verification?.worst.relative,
    changed: change.worst.relative,
    adapter,
    merged,
  };
}

if (process.argv[1] === import.meta.filename) console.log(await main());
