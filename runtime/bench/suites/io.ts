/** Decoding and writing whole models. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { inTurn, type Subject } from '../compare.js';
import { BERT_1GB, BERT_TINY, describeShape } from '../models/shapes.js';
import { runTask } from '../process.js';
import type { Suite } from '../suite.js';
import { hundredths, percent, whole } from '../table.js';
import type { Json } from '../task.js';

const COPY = 'plain copy and flush';

export const io: Suite = {
  id: 'io',
  summary: 'reading and writing a model of 1 GB',
  run: async ({ quick, rounds, folder, log, bert }) => {
    const shape = quick ? BERT_TINY : BERT_1GB;
    const inline = await bert(shape, 'inline');
    const external = await bert(shape, 'file');
    const out = join(folder, 'io');
    const to = join(out, 'model.onnx');
    const subject = (name: string, task: string, input: Json): Subject => ({
      name,
      measure: async () => {
        await rm(out, { recursive: true, force: true });
        await mkdir(out);
        return runTask(task, input);
      },
    });
    const rewrite = (name: string, from: string, externalData: string, weights = 'copy') =>
      subject(name, 'rewrite', { from, to, externalData, weights });
    const subjects = [
      subject(COPY, 'copy', { files: [{ from: inline, to }] }),
      rewrite('inside → inside', inline, 'keep'),
      rewrite('inside → external', inline, 'file'),
      rewrite('external → inside', external, 'inline'),
      rewrite('external → external, data file copied', external, 'keep'),
      rewrite('external → external, data file linked', external, 'keep', 'link'),
    ];
    const measured = await inTurn(subjects, rounds, log);
    await rm(out, { recursive: true, force: true });
    return {
      tables: [
        {
          id: 'io',
          title: `Files: BERT, ${describeShape(shape)}, read and written (with fsync)`,
          columns: [
            { key: 'subject', head: 'weights' },
            { key: 'decodeMs', head: 'decode, ms', format: whole },
            { key: 'writeMs', head: 'write, ms', format: whole },
            { key: 'spread', head: 'spread', format: percent },
            { key: 'overCopy', head: 'write ÷ copy', format: hundredths },
            { key: 'peakMiB', head: 'peak MiB', format: whole },
          ],
          rows: subjects.map(({ name }) => {
            const time = name === COPY ? 'copyMs' : 'writeMs';
            return {
              subject: name,
              decodeMs: measured.best(name, 'decodeMs'),
              writeMs: measured.best(name, time),
              spread: measured.spread(name, time),
              overCopy: measured.ratio(name, time, COPY, 'copyMs'),
              peakMiB: measured.median(name, 'peakMiB'),
            };
          }),
        },
      ],
      raw: measured.all(),
    };
  },
};
