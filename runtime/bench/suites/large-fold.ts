/** Folding a LoRA of PEFT into models of 1 GB whose weights lie beside them: time against the system's copy, memory. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { byteSize } from '../../../src/types.js';
import { inTurn, type Subject } from '../compare.js';
import { LLAMA_1GB, LLAMA_1GB_HALF, LLAMA_TINY, type LlamaDType, type LlamaShape } from '../models/llama.js';
import { runTask } from '../process.js';
import type { BenchContext, Suite, SuiteResult } from '../suite.js';
import { hundredths, percent, type Table, whole } from '../table.js';
import type { Json } from '../task.js';

const RANK = 16;

/** Where weights that do not change are afterwards: in the base's file still, or with the others in one of their own. */
const FOLDS = { keep: 'fold', file: 'fold into a data file of its own' } as const;
const PLACES = ['keep', 'file'] as const;

export const largeFold: Suite = {
  id: 'large-fold',
  summary: 'folding a 1 GB model with external data: time against a copy, memory above the runtime',
  run: measure,
};

interface Case {
  readonly id: string;
  readonly shape: LlamaShape;
  readonly dtype: LlamaDType;
}

const CASES: readonly Case[] = [
  { id: 'large-fold', shape: LLAMA_1GB, dtype: 'float32' },
  { id: 'large-fold-float16', shape: LLAMA_1GB_HALF, dtype: 'float16' },
  { id: 'large-fold-bfloat16', shape: LLAMA_1GB_HALF, dtype: 'bfloat16' },
];

async function measure(context: BenchContext): Promise<SuiteResult> {
  const tables: Table[] = [];
  const raw: Record<string, readonly Json[]> = {};
  for (const one of CASES) {
    const { table, all } = await measureCase(one, context);
    tables.push(table);
    for (const [name, measurements] of Object.entries(all)) raw[`${one.dtype}, ${name}`] = measurements;
  }
  return { tables, raw };
}

async function measureCase(
  { id, shape: full, dtype }: Case,
  { quick, folder, rounds: count, log }: BenchContext,
) {
  const shape = quick ? LLAMA_TINY : full;
  const model = join(folder, 'llama.onnx');
  const adapter = join(folder, 'llama-lora');
  log(`  writing a decoder of ${shape.layers} layers, width ${shape.hidden}, in ${dtype}`);
  const { sites } = await runTask('writeLlama', { shape, dtype, out: model, adapter, rank: RANK });
  const copied = join(folder, 'copy.onnx');
  const merged = join(folder, 'merged.onnx');
  const sources = [model, `${model}.data`];
  const files = sources.map((from) => ({ from, to: from.replace(model, copied) }));
  const clear = () =>
    Promise.all(
      [copied, merged].flatMap((path) => [rm(path, { force: true }), rm(`${path}.data`, { force: true })]),
    );
  const subjects = [true, false].flatMap((cold): Subject[] => {
    const prepared = async (name: string, input: Record<string, unknown>) => {
      await clear();
      await runTask('cachePages', { files: sources, cold });
      const figures = await runTask(name, input);
      await clear();
      return figures;
    };
    return [
      { name: nameOf('copy', cold), measure: () => prepared('systemCopy', { files }) },
      ...PLACES.map((externalData) => ({
        name: nameOf(FOLDS[externalData], cold),
        measure: () => prepared('largeFold', { model, adapter, out: merged, externalData }),
      })),
    ];
  });
  const rounds = await inTurn(subjects, count, log);
  for (const path of [...sources, adapter]) await rm(path, { recursive: true, force: true });
  const rows = [true, false].flatMap((cold) => {
    const copy = nameOf('copy', cold);
    const copyMs = rounds.median(copy, 'copyMs');
    return [
      { subject: copy, ms: copyMs, spread: rounds.spread(copy, 'copyMs') },
      ...PLACES.map((place) => {
        const fold = nameOf(FOLDS[place], cold);
        const foldMs = rounds.median(fold, 'foldMs');
        const peak = rounds.median(fold, 'peakMiB');
        const runtime = rounds.median(fold, 'runtimeMiB');
        return {
          subject: fold,
          ms: foldMs,
          spread: rounds.spread(fold, 'foldMs'),
          overCopy: foldMs === null || copyMs === null ? null : foldMs / copyMs,
          peakMiB: peak,
          runtimeMiB: runtime,
          aboveMiB: peak === null || runtime === null ? null : peak - runtime,
        };
      }),
    ];
  });
  const table: Table = {
    id,
    title: `Fold: Llama-shaped decoder, ${shape.layers} layers, width ${shape.hidden}, ${gigabytes(shape, dtype)} GB of ${dtype} in external data, PEFT LoRA r=${RANK} on all linear modules (${String(sites)})`,
    columns: [
      { key: 'subject', head: 'what' },
      { key: 'ms', head: 'ms', format: whole },
      { key: 'spread', head: 'spread', format: percent },
      { key: 'overCopy', head: 'time ÷ copy', format: hundredths },
      { key: 'peakMiB', head: 'peak MiB', format: whole },
      { key: 'runtimeMiB', head: 'runtime alone', format: whole },
      { key: 'aboveMiB', head: 'above it', format: whole },
    ],
    rows,
    notes: [
      'Medians over rounds, in turn. Copy: `cp` and `sync` of both files. Fold: reading the folder to the last rename, written and synced, with the check of all untouched bytes. Cold: the system was asked to forget the pages of the base. Runtime alone: the same process after a session of one node ran.',
    ],
  };
  return { table, all: rounds.all() };
}

function nameOf(what: string, cold: boolean): string {
  return `${what}, ${cold ? 'cold' : 'warm'}`;
}

function gigabytes({ layers, hidden, intermediate, vocab }: LlamaShape, dtype: LlamaDType): string {
  const weights = vocab * hidden + layers * (4 * hidden * hidden + 3 * hidden * intermediate);
  return (byteSize(dtype, weights) / 1e9).toFixed(2);
}
