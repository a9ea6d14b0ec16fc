/** Every method on the same model: does it learn, what does it store, what does it cost before and after the fold. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { METHODS } from '../../../passes/methods/registry.js';
import { runTask } from '../process.js';
import { repositoryFile } from '../root.js';
import type { Suite } from '../suite.js';
import { type Column, tenths, whole } from '../table.js';
import { type Json, median } from '../task.js';

const STEPS = 40;
const SIZES = { batch: 1, sequence: 128 };

/** What some methods need on the quickstart's model: it has no biases, and vectors of 256 do not divide its width. */
const SETTINGS: Readonly<Record<string, Json>> = {
  bitfit: { missing: 'add' },
  hiwi: { on: 'weight' },
  'vb-lora': { vectorLength: 64 },
};

const roadSchema = z.object({
  modules: z.int(),
  trainable: z.int(),
  stored: z.int(),
  storedBytes: z.int(),
  lossBefore: z.number(),
  lossAfter: z.number(),
  stepMs: z.number(),
  folds: z.enum(['yes', 'partly', 'no']),
  reason: z.string().nullable(),
});
const latencySchema = z.object({ rows: z.array(z.object({ label: z.string(), ratio: z.number() })) });

const ratio = (value: number) => value.toFixed(2);
const loss = (value: number) => value.toFixed(3);

const COLUMNS: readonly Column[] = [
  { key: 'method', head: 'method' },
  { key: 'settings', head: 'settings' },
  { key: 'modules', head: 'modules', format: whole },
  { key: 'trainable', head: 'trained', format: whole },
  { key: 'stored', head: 'stored', format: whole },
  { key: 'before', head: 'loss before', format: loss },
  { key: 'after', head: 'loss after', format: loss },
  { key: 'stepMs', head: 'step, ms', format: tenths },
  { key: 'folds', head: 'folds' },
  { key: 'unfolded', head: 'unfolded ÷ base', format: ratio },
  { key: 'folded', head: 'folded ÷ base', format: ratio },
  { key: 'again', head: 'base again ÷ base', format: ratio },
];

export const methods: Suite = {
  id: 'methods',
  summary: 'every method on the language model of the quickstart: learning, sizes, latency',
  run: async ({ folder, threads, rounds, runs, quick, log }) => {
    const base = repositoryFile('fixtures', 'quickstart', 'model.onnx');
    const raw: Record<string, readonly Json[]> = {};
    const rows: Record<string, string | number | null>[] = [];
    for (const { id, internal } of METHODS) {
      if (internal !== undefined) continue;
      log(`  ${id}`);
      const out = join(folder, `method-${id}`);
      const config = SETTINGS[id] ?? {};
      const steps = quick ? 3 : STEPS;
      const road = roadSchema.parse(await runTask('method', { id, config, steps, out, threads }));
      const models = [
        { label: 'base', path: base },
        { label: 'unfolded', path: join(out, 'unfolded.onnx') },
        { label: 'folded', path: join(out, 'folded.onnx') },
        { label: 'again', path: base },
      ].filter(({ path }) => existsSync(path));
      const sizes = quick ? { batch: 1, sequence: 16 } : SIZES;
      const measured: Json[] = [];
      for (let round = 0; round < rounds; round++)
        measured.push(await runTask('latency', { models, sizes, rounds: 10 * runs, threads }));
      const ratioOf = (label: string) => {
        const found = measured.flatMap((figures) =>
          latencySchema.parse(figures).rows.filter((row) => row.label === label),
        );
        return found.length === 0 ? null : median(found.map((row) => row.ratio));
      };
      raw[id] = [road, ...measured];
      rows.push({
        method: id,
        settings: Object.entries(config)
          .map(([name, value]) => `${name}: ${value}`)
          .join(', '),
        modules: road.modules,
        trainable: road.trainable,
        stored: road.stored,
        before: road.lossBefore,
        after: road.lossAfter,
        stepMs: road.stepMs,
        folds: road.folds,
        unfolded: ratioOf('unfolded'),
        folded: ratioOf('folded'),
        again: ratioOf('again'),
      });
    }
    const table = {
      id: 'methods',
      title: `Methods on the quickstart's language model, default settings where none is named, ${STEPS} steps of 8 × 128 tokens`,
      columns: COLUMNS,
      rows,
      notes: [
        `Loss on unseen text. Latency of 1 × 128 tokens over the base's, ${threads} threads, the models in turn run by run, median over ${rounds} processes; the second base shows what the noise is. Trained and stored: numbers, indices not counted.`,
      ],
    };
    return { tables: [table], raw };
  },
};
