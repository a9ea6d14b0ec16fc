/** QLoRA: step time and memory over quantised bases, against the float base. */
import { join } from 'node:path';
import { FORMATS } from '../../../passes/quantize/formats.js';
import { inTurn, type Subject } from '../compare.js';
import type { BertShape } from '../models/bert.js';
import { BERT_TINY, describeShape } from '../models/shapes.js';
import { runTask } from '../process.js';
import type { BenchContext, Suite, SuiteResult } from '../suite.js';
import { hundredths, percent, type Table, tenths, whole } from '../table.js';
import type { Json } from '../task.js';

/** Wide, so that weights are what memory goes to: 192 MiB of them in the linears. */
const WIDE: BertShape = {
  layers: 4,
  hidden: 1024,
  heads: 16,
  intermediate: 4096,
  vocab: 2000,
  positions: 512,
  labels: 2,
};
const RANK = 8;
const FLOAT = 'float32';
/** `--low-memory` of `peft-compile train`. */
const LOW_MEMORY = { prepack: false, memPattern: false };

export const qlora: Suite = {
  id: 'qlora',
  summary: 'LoRA over a quantised base: step time and memory against the float base',
  run: runQlora,
};

async function runQlora(context: BenchContext): Promise<SuiteResult> {
  const { quick, runs, threads, folder, log } = context;
  const shape = quick ? BERT_TINY : WIDE;
  const [batch, sequence] = quick ? [2, 16] : [4, 64];
  const base = await context.bert(shape, 'file');
  const prepared = new Map<string, Json>();
  const subjects: Subject[] = [];
  const size = { batch, sequence, vocab: shape.vocab, labels: shape.labels, runs };
  for (const format of [FLOAT, ...Object.keys(FORMATS)]) {
    const model = format === FLOAT ? base : join(folder, `qlora-${format}.onnx`);
    if (format !== FLOAT) {
      log(`  quantising: ${format}`);
      prepared.set(format, await runTask('quantizeBase', { model: base, out: model, format }));
    }
    const steps = join(folder, `qlora-${format}`);
    await runTask('writeSteps', { model, out: steps, rank: RANK, accumulation: 1 });
    const options = { threads, ...LOW_MEMORY };
    subjects.push({
      name: format,
      measure: () => runTask('step', { ...size, folder: steps, options }),
    });
  }
  const rounds = await inTurn(subjects, context.rounds, log);
  const rows = subjects.map(({ name }) => ({
    base: name,
    weightMiB: Number(prepared.get(name)?.weightMiB ?? floatMiB(shape)),
    error: Number(prepared.get(name)?.relativeError ?? 0),
    ms: rounds.best(name, 'stepMs'),
    spread: rounds.spread(name, 'stepMs'),
    overFloat: rounds.ratio(name, 'stepMs', FLOAT, 'stepMs'),
    peakMiB: rounds.median(name, 'peakMiB'),
    lessMiB: (rounds.median(FLOAT, 'peakMiB') ?? 0) - (rounds.median(name, 'peakMiB') ?? 0),
  }));
  const table: Table = {
    id: 'qlora',
    title: `QLoRA: BERT classifier, ${describeShape(shape)}, batch ${batch} × ${sequence}, LoRA r=${RANK} on query and value, AdamW, low-memory options, ${threads} threads`,
    columns: [
      { key: 'base', head: 'weights of the linears' },
      { key: 'weightMiB', head: 'MiB', format: tenths },
      { key: 'error', head: '‖Q−W‖/‖W‖', format: percent },
      { key: 'ms', head: 'step, ms', format: whole },
      { key: 'spread', head: 'spread', format: percent },
      { key: 'overFloat', head: 'time ÷ float', format: hundredths },
      { key: 'peakMiB', head: 'peak MiB', format: whole },
      { key: 'lessMiB', head: 'less than float', format: whole },
    ],
    rows,
    notes: ['Peak: of the whole process. Error: of the worst weight, random normal numbers.'],
  };
  return { tables: [table], raw: rounds.all() };
}

/** Of the linears that are quantised, in float32: four square ones and two of the feed-forward block a layer, the pooler. */
function floatMiB({ layers, hidden, intermediate }: BertShape): number {
  const numbers = layers * (4 * hidden * hidden + 2 * hidden * intermediate) + hidden * hidden;
  return (4 * numbers) / 2 ** 20;
}
