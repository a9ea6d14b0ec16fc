/** Base, unfolded and folded models against one another. */
import { join } from 'node:path';
import { z } from 'zod';
import { BERT_BASE_6 } from '../models/bert.js';
import { BERT_TINY } from '../models/shapes.js';
import { runCommand, runTask } from '../process.js';
import { repositoryFile } from '../root.js';
import type { BenchContext, Suite } from '../suite.js';
import { type Column, hundredths, type Table } from '../table.js';
import { type Json, median } from '../task.js';

const RANK = 8;
const SEQUENCE = 128;
const rowsSchema = z.object({
  rows: z.array(z.object({ label: z.string(), ms: z.number(), ratio: z.number() })),
});

export const latency: Suite = {
  id: 'latency',
  summary: 'latency of base, unfolded and folded models',
  run: async (context) => {
    const bert = await context.bert(context.quick ? BERT_TINY : BERT_BASE_6, 'inline');
    const quickstart = repositoryFile('fixtures', 'quickstart', 'model.onnx');
    const raw: Record<string, readonly Json[]> = {};
    const tables: Table[] = [];
    for (const { id, title, base, targets } of [
      {
        id: 'latency-bert',
        title: 'BERT classifier of the step figures',
        base: bert,
        targets: ['query', 'value'],
      },
      {
        id: 'latency-quickstart',
        title: "the quickstart's language model",
        base: quickstart,
        targets: 'all-linear',
      },
    ]) {
      const models = await prepare(context, id, base, targets);
      const rows: Record<string, string | number>[] = [];
      for (const batch of [1, 8]) {
        context.log(`  ${title}, batch ${batch}`);
        const { medians, all } = await measure(context, models, batch);
        raw[`${id}, batch ${batch}`] = all;
        rows.push(
          ...medians.map((row) => ({ batch: `${batch} × ${context.quick ? 16 : SEQUENCE}`, ...row })),
        );
      }
      const into = typeof targets === 'string' ? 'all linear modules' : targets.join(' and ');
      tables.push({
        id,
        title: `Latency: ${title}, LoRA r=${RANK} on ${into}, ${context.threads} threads`,
        columns: COLUMNS,
        rows,
        notes: [
          'All four in one process, in turn run by run; the ratio is the median over runs of the ratio within a turn. The second base shows what the noise is.',
        ],
      });
    }
    return { tables, raw };
  },
};

const COLUMNS: readonly Column[] = [
  { key: 'batch', head: 'batch' },
  { key: 'label', head: 'model' },
  { key: 'ms', head: 'ms', format: hundredths },
  { key: 'ratio', head: '÷ base', format: (value) => value.toFixed(3) },
];

type Models = readonly { readonly label: string; readonly path: string }[];

async function prepare(
  { folder, log }: BenchContext,
  id: string,
  base: string,
  targets: string | readonly string[],
): Promise<Models> {
  log(`  folding for ${id}`);
  const adapter = join(folder, `${id}.safetensors`);
  const unfolded = join(folder, `${id}-unfolded.onnx`);
  const folded = join(folder, `${id}-folded.onnx`);
  await runTask('writeRandomAdapter', { model: base, out: adapter, rank: RANK, targets });
  await runTask('writeUnfolded', { model: base, adapter, out: unfolded });
  await runCommand(['fold', base, '--adapter', adapter, '--out', folded], folder);
  return [
    { label: 'base', path: base },
    { label: 'unfolded', path: unfolded },
    { label: 'folded', path: folded },
    { label: 'base, once more', path: base },
  ];
}

async function measure({ rounds, runs, threads, quick }: BenchContext, models: Models, batch: number) {
  const sizes = { batch, sequence: quick ? 16 : SEQUENCE };
  const all: Json[] = [];
  for (let round = 0; round < rounds; round++)
    all.push(await runTask('latency', { models, sizes, rounds: 5 * runs, threads }));
  const parsed = all.map((figures) => rowsSchema.parse(figures).rows);
  const medians = models.map(({ label }, i) => ({
    label,
    ms: Math.min(...parsed.map((rows) => rows[i]?.ms ?? Number.NaN)),
    ratio: median(parsed.map((rows) => rows[i]?.ratio ?? Number.NaN)),
  }));
  return { medians, all };
}
