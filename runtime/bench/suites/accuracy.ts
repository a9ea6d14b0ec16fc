/** How far training and folding are from torch, peft and the unfolded graph. No times. */
import { z } from 'zod';
import { runTask } from '../process.js';
import type { Suite } from '../suite.js';
import { scientific } from '../table.js';

const rowsSchema = z.object({
  rows: z.array(z.record(z.string(), z.union([z.string(), z.number(), z.null()]))),
});

export const accuracy: Suite = {
  id: 'accuracy',
  summary: 'agreement with torch and peft, and fold errors, on the fixtures',
  run: async ({ quick, log }) => {
    const input = quick ? { only: 'bert.ts.static' } : {};
    log('  replaying the reference runs');
    const replayed = rowsSchema.parse(await runTask('agreement', input));
    log('  folding the fixtures');
    const folded = rowsSchema.parse(await runTask('foldErrors', input));
    return {
      tables: [
        {
          id: 'agreement',
          title: '20 optimizer steps against torch + peft, from the same values on the same batches',
          columns: [
            { key: 'reference', head: 'run' },
            { key: 'model', head: 'export' },
            { key: 'loss', head: 'losses', format: scientific },
            { key: 'loss64', head: 'losses, to float64', format: scientific },
            { key: 'torchLoss', head: "torch's own", format: scientific },
            { key: 'gradient', head: 'step-1 gradients', format: scientific },
            { key: 'gradient64', head: 'gradients, to float64', format: scientific },
            { key: 'torchGradient', head: "torch's own", format: scientific },
            { key: 'norm', head: 'gradient norms', format: scientific },
            { key: 'final', head: 'final parameters', format: scientific },
          ],
          rows: replayed.rows,
          notes: [
            "Largest relative difference over steps (losses, norms) or over tensors in relative 2-norm (gradients, parameters). `torch's own`: the same figure of torch in float32 against torch in float64.",
          ],
        },
        {
          id: 'fold-errors',
          title: 'Folded against unfolded: LoRA r=3, alpha 5, random values, on all linear modules',
          columns: [
            { key: 'model', head: 'export' },
            { key: 'dtype', head: 'dtype' },
            { key: 'tensors', head: 'weights changed' },
            { key: 'relative', head: 'worst difference ÷ output scale', format: scientific },
            { key: 'tolerance', head: 'tolerance', format: scientific },
            { key: 'proved', head: 'structure proved' },
          ],
          rows: folded.rows,
        },
      ],
    };
  },
};
