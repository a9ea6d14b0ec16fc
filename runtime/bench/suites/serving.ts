/** What serving adapters costs beside the base: as weights, as inputs, chosen by run, mixed by row. */
import { z } from 'zod';
import { runTask } from '../process.js';
import { repositoryFile } from '../root.js';
import type { Suite } from '../suite.js';
import { hundredths } from '../table.js';
import { type Json, median } from '../task.js';

const SEQUENCE = 64;
/** Adapters of different rank: those mixed by row are filled up to the largest. */
const RANKS = [8, 8, 4, 16];
const parsed = z.object({
  rows: z.array(z.object({ label: z.string(), ms: z.number(), perRow: z.number(), ratio: z.number() })),
});

export const serving: Suite = {
  id: 'serving',
  summary: 'latency of several adapters: as inputs, chosen by run, mixed by row of the batch',
  run: async ({ rounds, runs, threads, quick, folder, log }) => {
    const model = repositoryFile('fixtures', 'quickstart', 'model.onnx');
    const raw: Record<string, readonly Json[]> = {};
    const rows: Record<string, string | number>[] = [];
    for (const batch of [1, 8]) {
      log(`  batch ${batch}`);
      const all: Json[] = [];
      for (let round = 0; round < rounds; round++)
        all.push(
          await runTask('serving', {
            model,
            folder,
            ranks: RANKS,
            batch,
            sequence: quick ? 16 : SEQUENCE,
            rounds: 5 * runs,
            threads,
          }),
        );
      raw[`batch ${batch}`] = all;
      const figures = all.map((figure) => parsed.parse(figure).rows);
      for (const [i, { label }] of (figures[0] ?? []).entries())
        rows.push({
          batch: `${batch} × ${quick ? 16 : SEQUENCE}`,
          label,
          ms: Math.min(...figures.map((one) => one[i]?.ms ?? Number.NaN)),
          perRow: Math.min(...figures.map((one) => one[i]?.perRow ?? Number.NaN)),
          ratio: median(figures.map((one) => one[i]?.ratio ?? Number.NaN)),
        });
    }
    return {
      tables: [
        {
          id: 'serving',
          title: `Serving: the quickstart's language model, LoRA r=${RANKS.join(', ')} on all linear modules, ${threads} threads`,
          columns: [
            { key: 'batch', head: 'batch' },
            { key: 'label', head: 'served' },
            { key: 'ms', head: 'ms', format: hundredths },
            { key: 'perRow', head: 'ms per row', format: hundredths },
            { key: 'ratio', head: '÷ base', format: (value) => value.toFixed(3) },
          ],
          rows,
          notes: ['All in one process, in turn run by run. The second base shows what the noise is.'],
        },
      ],
      raw,
    };
  },
};
