/** Ways to serve adapters of one base, in turn within one process, on the same batch. */
import { join } from 'node:path';
import { z } from 'zod';
import { initTensor, normal } from '../../../src/initializer.js';
import { readModel, writeModel } from '../../../src/onnx/index.js';
import type { Tensor } from '../../../src/tensor.js';
import type { AdapterFile } from '../../adapter-file.js';
import { servingTensors } from '../../export/serving-tensors.js';
import { loadTensor, tensorOfNumbers } from '../../host-tensor.js';
import { median } from '../../latency.js';
import { attach } from '../../library/attach.js';
import { combine } from '../../library/combine.js';
import { serve } from '../../library/serving.js';
import { randomInputs } from '../../random-inputs.js';
import { type Session, SessionHost, type Tensors } from '../../session.js';
import type { BenchTask } from '../task.js';
import { withLora } from './lora.js';

const schema = z.object({
  model: z.string(),
  folder: z.string(),
  ranks: z.array(z.int()),
  batch: z.int(),
  sequence: z.int(),
  rounds: z.int(),
  threads: z.int(),
});

/** `rows`: label, median milliseconds of a run and per row of the batch, and the median ratio to the base. */
export const serving: BenchTask = async (input) => {
  const { model: path, folder, ranks, batch, sequence, rounds, threads } = schema.parse(input);
  const adapters = ranks.map((rank, i) => randomAdapter(path, rank, i + 1));
  const [first] = adapters as [AdapterFile];
  const feeds: Tensors = randomInputs(readModel(path), { sizes: { batch, sequence }, seed: 0 });
  const file = (name: string) => join(folder, `serving-${name}.onnx`);

  const unfolded = readModel(path);
  await attach(unfolded, first, { anyBase: true });
  await writeModel(unfolded, file('unfolded'), { force: true });
  const { none } = await serve({
    model: path,
    adapter: first,
    anyBase: true,
    out: file('inputs'),
    force: true,
  });
  const named = Object.fromEntries(adapters.map((adapter, i) => [`a${i}`, adapter]));
  for (const by of ['run', 'row'] as const)
    await combine({ model: path, adapters: named, by, anyBase: true, out: file(by), force: true });

  const empty = typeof none === 'string' ? new Map<string, Tensor>() : none;
  const index = (values: readonly number[], dims: readonly number[]) => ({
    adapter: tensorOfNumbers('int64', dims, values),
  });
  const rows = Array.from({ length: batch }, (_, row) => row % (adapters.length + 1));
  const served = [
    { label: 'base', path, more: {} },
    { label: 'one adapter, in the graph', path: file('unfolded'), more: {} },
    { label: 'one adapter, as inputs', path: file('inputs'), more: await fed(await servingTensors(first)) },
    { label: 'no adapter, as inputs of rank 0', path: file('inputs'), more: await fed(empty) },
    { label: `one of ${adapters.length}, by run`, path: file('run'), more: index([1], []) },
    { label: `${adapters.length} mixed, by row`, path: file('row'), more: index(rows, [batch]) },
    {
      label: 'base for every row, by row',
      path: file('row'),
      more: index(
        rows.map(() => 0),
        [batch],
      ),
    },
    { label: 'base, once more', path, more: {} },
  ];
  const host = new SessionHost();
  try {
    const sessions: Session[] = [];
    for (const one of served) sessions.push(await host.createSession(one.path, { threads }));
    const times = served.map((): number[] => []);
    const warmup = 2;
    for (let round = 0; round < warmup + rounds; round++)
      for (const [i, session] of sessions.entries()) {
        const start = performance.now();
        await session.run({ ...feeds, ...served[i]?.more });
        if (round >= warmup) times[i]?.push(performance.now() - start);
      }
    return {
      rows: served.map(({ label }, i) => {
        const ms = median(times[i] ?? []);
        const ratio = median((times[i] ?? []).map((time, round) => time / (times[0]?.[round] ?? time)));
        return { label, ms, perRow: ms / batch, ratio };
      }),
    };
  } finally {
    await host.close();
  }
};

function randomAdapter(path: string, rank: number, seed: number): AdapterFile {
  const { record } = withLora(readModel(path), rank, 'all-linear');
  const tensors = new Map<string, Tensor>();
  for (const { params } of record.sites)
    for (const { key, shape, dtype } of Object.values(params))
      tensors.set(key, initTensor(normal(0.02), dtype, shape, seed, key));
  return { record, tensors, digest: `${seed}` };
}

async function fed(tensors: ReadonlyMap<string, Tensor>): Promise<Tensors> {
  const feeds: Record<string, Tensors[string]> = {};
  for (const [name, tensor] of tensors) feeds[name] = await loadTensor(tensor);
  return feeds;
}
