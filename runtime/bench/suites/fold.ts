/** Folding against a plain copy of the file, and against torch: load, merge_and_unload, export. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { inTurn, type Rounds, type Subject } from '../compare.js';
import type { BertShape } from '../models/bert.js';
import { BERT_1GB, BERT_BASE, BERT_TINY, describeShape } from '../models/shapes.js';
import { runCommand, runPeer, runTask } from '../process.js';
import { type BenchContext, NO_PEER, type Suite, type SuiteResult } from '../suite.js';
import { hundredths, percent, type Table, whole } from '../table.js';
import type { Json } from '../task.js';

const RANK = 8;
const COPY = 'copy of the file and flush';
const FOLD = 'peft-compile fold, whole process';

interface Case {
  readonly id: string;
  readonly shape: BertShape;
  readonly externalData: 'inline' | 'file';
  readonly targets: 'all-linear' | readonly string[];
  readonly peers: boolean;
}

const CASES: readonly Case[] = [
  { id: 'fold-base', shape: BERT_BASE, externalData: 'inline', targets: ['query', 'value'], peers: true },
  { id: 'fold-base-all', shape: BERT_BASE, externalData: 'inline', targets: 'all-linear', peers: true },
  { id: 'fold-1gb', shape: BERT_1GB, externalData: 'file', targets: ['query', 'value'], peers: false },
];

export const fold: Suite = {
  id: 'fold',
  summary: 'folding against a plain copy, and against torch: load, merge, export',
  run: async (context) => {
    const tables: Table[] = [];
    const raw: Record<string, readonly Json[]> = {};
    for (const item of CASES) {
      const { table, rounds } = await foldCase(context, item);
      tables.push(table);
      for (const [name, figures] of Object.entries(rounds.all())) raw[`${item.id}: ${name}`] = figures;
    }
    return { tables, raw } satisfies SuiteResult;
  },
};

async function foldCase(
  context: BenchContext,
  { id, shape: full, externalData, targets, peers }: Case,
): Promise<{ table: Table; rounds: Rounds }> {
  const { quick, folder, log, threads } = context;
  const shape = quick ? BERT_TINY : full;
  const model = await context.bert(shape, externalData);
  const adapter = join(folder, `${id}.safetensors`);
  const { sites } = await runTask('writeRandomAdapter', { model, out: adapter, rank: RANK, targets });
  const merged = join(folder, id, 'merged.onnx');
  const copied = join(folder, `${id}-copy.onnx`);
  const checkpoint = join(folder, `${id}-torch`);
  const exported = join(folder, `${id}-exported`);
  // Every run writes to names that do not exist, so that none pays for freeing another's blocks.
  const clear = () =>
    Promise.all(
      [join(folder, id), copied, `${copied}.data`, exported].map((path) =>
        rm(path, { recursive: true, force: true }),
      ),
    );
  const files = [
    { from: model, to: copied },
    ...(externalData === 'file' ? [{ from: `${model}.data`, to: `${copied}.data` }] : []),
  ];
  const subject = (name: string, measure: () => Promise<Json>): Subject => ({
    name,
    measure: async () => {
      await clear();
      return measure();
    },
  });
  const python = peers ? context.python : undefined;
  const spec = { ...shape, rank: RANK, targets, checkpoint, out: exported, threads };
  if (python !== undefined) await runPeer(python, 'peft_merge.py', { ...spec, mode: 'prepare' });
  const exporters = { 'TorchScript exporter': false, 'dynamo exporter': true };
  const subjects = [
    subject(COPY, async () => {
      const figures = await runTask('copy', { files });
      return { ...figures, wallMs: figures.copyMs };
    }),
    subject(FOLD, () => runCommand(['fold', model, '--adapter', adapter, '--out', merged], folder)),
    ...(python === undefined
      ? []
      : Object.entries(exporters).map(([name, dynamo]) =>
          subject(`torch: load, merge_and_unload, ${name}`, () =>
            runPeer(python, 'peft_merge.py', { ...spec, mode: 'merge', dynamo }),
          ),
        )),
  ];
  const rounds = await inTurn(subjects, context.rounds, log);
  await clear();
  await rm(checkpoint, { recursive: true, force: true });
  const into = targets === 'all-linear' ? 'all linear modules' : `${targets.join(' and ')}`;
  const table: Table = {
    id,
    title: `Fold: BERT, ${describeShape(shape)}, weights ${externalData === 'file' ? 'as external data' : 'inside'}, LoRA r=${RANK} on ${into} (${String(sites)} modules)`,
    columns: [
      { key: 'subject', head: 'what' },
      { key: 'ms', head: 'ms', format: whole },
      { key: 'spread', head: 'spread', format: percent },
      { key: 'overCopy', head: 'time ÷ copy', format: hundredths },
      { key: 'faster', head: 'fold is faster by', format: (n) => `${n.toFixed(1)} ×` },
      { key: 'peakMiB', head: 'peak MiB', format: whole },
    ],
    rows: subjects.map(({ name }) => ({
      subject: name,
      ms: rounds.best(name, 'wallMs'),
      spread: rounds.spread(name, 'wallMs'),
      overCopy: rounds.ratio(name, 'wallMs', COPY),
      faster: rounds.ratio(name, 'wallMs', FOLD),
      peakMiB: rounds.median(name, 'peakMiB'),
    })),
    notes: [
      'Times are of whole processes, start to end; the copy is timed without the start of its process.',
      ...(peers && python === undefined ? [NO_PEER] : []),
    ],
  };
  return { table, rounds };
}
