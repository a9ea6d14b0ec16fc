/** Compile time over the number of nodes. */
import { inTurn } from '../compare.js';
import { runTask } from '../process.js';
import type { Suite } from '../suite.js';
import { type Column, hundredths, percent, type Table, whole } from '../table.js';

export const compile: Suite = {
  id: 'compile',
  summary: 'insert, backward and emit over graphs of growing size',
  run: async ({ quick, rounds, log }) => {
    const sizes = quick ? [100, 200] : [1000, 5000, 20_000];
    const measured = await inTurn(
      sizes.flatMap((nodes) =>
        ['differentiate', 'compile'].map((task) => ({
          name: `${task} ${nodes}`,
          measure: () => runTask(task, { nodes }),
        })),
      ),
      rounds,
      log,
    );
    const table = (
      id: string,
      title: string,
      task: string,
      part: Column,
      more: readonly Column[],
    ): Table => ({
      id,
      title,
      columns: [
        { key: 'nodes', head: 'nodes' },
        { key: 'insertMs', head: 'insert, ms', format: whole },
        part,
        { key: 'totalMs', head: 'together, ms', format: whole },
        { key: 'spread', head: 'spread', format: percent },
        { key: 'perNode', head: 'µs a node', format: whole },
        ...more,
        { key: 'peakMiB', head: 'peak MiB', format: whole },
      ],
      rows: sizes.map((size) => {
        const name = `${task} ${size}`;
        const value = (key: string) => measured.best(name, key);
        return {
          nodes: value('nodes'),
          insertMs: value('insertMs'),
          [part.key]: value(part.key),
          totalMs: value('totalMs'),
          spread: measured.spread(name, 'totalMs'),
          perNode: measured.ratio(name, 'totalMs', name, 'nodes')! * 1000,
          growth: measured.ratio(name, 'stepNodes', name, 'nodes'),
          peakMiB: value('peakMiB'),
        };
      }),
      notes: [
        'BERT graphs of growing depth, LoRA on query and value; first and only call in a fresh process.',
      ],
    });
    return {
      tables: [
        table(
          'compile-backward',
          'Compile: insert and backward (normalisation, loss and differentiation)',
          'differentiate',
          { key: 'backwardMs', head: 'backward, ms', format: whole },
          [],
        ),
        table(
          'compile-emit',
          'Compile: insert and emit (step and eval graph, optimizer, manifest)',
          'compile',
          { key: 'emitMs', head: 'emit, ms', format: whole },
          [{ key: 'growth', head: 'step nodes ÷ nodes', format: hundredths }],
        ),
      ],
      raw: measured.all(),
    };
  },
};
