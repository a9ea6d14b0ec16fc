/** Step time and memory against torch + peft and against the forward pass alone. */
import { join } from 'node:path';
import { inTurn, type Rounds, type Subject } from '../compare.js';
import { BERT_BASE_6 } from '../models/bert.js';
import { BERT_TINY, describeShape } from '../models/shapes.js';
import { runPeer, runTask } from '../process.js';
import { type BenchContext, NO_PEER, type Suite, type SuiteResult } from '../suite.js';
import { hundredths, percent, type Table, tenths, whole } from '../table.js';
import type { Json } from '../task.js';
import type { OperatorTime } from '../tasks/profile.js';

const RANK = 8;
/** `--low-memory` of `peft-compile train`. */
const LOW_MEMORY = { prepack: false, memPattern: false };

const FORWARD = 'forward, ONNX Runtime';
const FORWARD_LOW = 'forward, low-memory options';
const STEP = 'step graph';
const TORCH_FORWARD = 'forward, torch';
const TORCH_STEP = 'step, torch + peft';

export const step: Suite = {
  id: 'step',
  summary: 'step time and memory of LoRA on a 6-layer BERT-base-width classifier',
  run: runStep,
};

async function runStep(context: BenchContext): Promise<SuiteResult> {
  const { quick, runs, threads, folder, python, log } = context;
  const shape = quick ? BERT_TINY : BERT_BASE_6;
  const [batch, sequence] = quick ? [4, 16] : [8, 128];
  const external = await context.bert(shape, 'file');
  const inline = await context.bert(shape, 'inline');
  const artifacts = async (model: string, accumulation: number, name: string, recompute = false) => {
    const out = join(folder, `step-${name}`);
    await runTask('writeSteps', { model, out, rank: RANK, accumulation, recompute });
    return out;
  };
  log('  emitting the step graphs');
  const whole8 = await artifacts(external, 1, 'whole');
  const inlined = await artifacts(inline, 1, 'inline');
  const halves = await artifacts(external, 2, 'halves');
  const quarters = await artifacts(external, 4, 'quarters');
  const again = await artifacts(external, 1, 'recompute', true);
  const quartersAgain = await artifacts(external, 4, 'quarters-recompute', true);

  const size = { batch, sequence, vocab: shape.vocab, labels: shape.labels, runs };
  const ours = (name: string, task: string, input: Json, options: Json = {}): Subject => ({
    name,
    measure: () => runTask(task, { ...size, ...input, options: { threads, ...options } }),
  });
  const peer = (name: string, mode: 'forward' | 'step'): Subject => ({
    name,
    measure: () => runPeer(python ?? '', 'peft_step.py', { ...shape, ...size, threads, rank: RANK, mode }),
  });
  /** A step beside the estimate for its graphs. */
  const planned = (name: string, steps: string, micro = 1, options: Json = {}): Subject => {
    const task = { folder: steps, batch: batch / micro, sequence, prepack: options.prepack !== false };
    return {
      name,
      measure: async () => {
        const { planMiB } = await runTask('planSteps', task);
        return {
          ...(await ours(name, 'step', { folder: steps }, options).measure()),
          planMiB: planMiB ?? null,
        };
      },
    };
  };
  const low = 'low-memory';
  const micro = (count: number) => `micro-batches ${batch / count} × ${count}`;
  const subjects = [
    ours(FORWARD, 'forward', { model: external }),
    planned(STEP, whole8),
    ...(python === undefined ? [] : [peer(TORCH_STEP, 'step')]),
    planned(`${STEP}, low-memory options`, whole8, 1, LOW_MEMORY),
    planned(`${STEP}, ${micro(2)}`, halves, 2),
    planned(`${STEP}, ${micro(4)}`, quarters, 4),
    planned(`${STEP}, ${micro(2)}, ${low}`, halves, 2, LOW_MEMORY),
    planned(`${STEP}, ${micro(4)}, ${low}`, quarters, 4, LOW_MEMORY),
    planned(`${STEP}, recompute`, again),
    planned(`${STEP}, recompute, ${low}`, again, 1, LOW_MEMORY),
    planned(`${STEP}, recompute, ${micro(4)}, ${low}`, quartersAgain, 4, LOW_MEMORY),
    ours(`${STEP}, weights inside the file`, 'step', { folder: inlined }),
    ours('insert, emit and step in one process', 'train', { model: external, rank: RANK }),
    ours(FORWARD_LOW, 'forward', { model: external }, LOW_MEMORY),
    ...(python === undefined ? [] : [peer(TORCH_FORWARD, 'forward')]),
  ];
  const rounds = await inTurn(subjects, context.rounds, log);
  const title = `Step: BERT classifier, ${describeShape(shape)}, batch ${batch} × ${sequence}, LoRA r=${RANK} on query and value, AdamW, clip 1, ${threads} threads`;
  const tables = [stepTable(title, rounds, subjects, python !== undefined)];
  if (context.profile)
    for (const [label, options] of Object.entries({ '': {}, ', low-memory options': LOW_MEMORY })) {
      const profile = join(folder, `trace${tables.length}`);
      const options_ = { threads, profile, ...options };
      const { operators } = await runTask('step', { ...size, folder: whole8, options: options_ });
      tables.push(operatorTable(`profile-${tables.length}`, label, operators as OperatorTime[]));
    }
  return { tables, raw: rounds.all() };
}

function stepTable(title: string, rounds: Rounds, subjects: readonly Subject[], peers: boolean): Table {
  const rows = subjects.map(({ name }) => {
    const time = name.startsWith('forward') ? 'forwardMs' : 'stepMs';
    const reference = name === TORCH_STEP || name === TORCH_FORWARD ? TORCH_FORWARD : FORWARD;
    return {
      subject: name,
      ms: rounds.best(name, time),
      spread: rounds.spread(name, time),
      overForward: rounds.ratio(name, time, reference, 'forwardMs'),
      overPeft: rounds.ratio(name, time, TORCH_STEP, 'stepMs'),
      peakMiB: rounds.median(name, 'peakMiB'),
      memoryOverPeft: rounds.ratio(name, 'peakMiB', TORCH_STEP),
      planMiB: rounds.median(name, 'planMiB'),
      idleMiB: rounds.median(name, 'idleMiB'),
    };
  });
  return {
    id: 'step',
    title,
    columns: [
      { key: 'subject', head: 'what' },
      { key: 'ms', head: 'ms', format: whole },
      { key: 'spread', head: 'spread', format: percent },
      { key: 'overForward', head: '÷ own forward', format: hundredths },
      { key: 'overPeft', head: 'time ÷ peft step', format: hundredths },
      { key: 'peakMiB', head: 'peak MiB', format: whole },
      { key: 'memoryOverPeft', head: 'peak ÷ peft step', format: hundredths },
      { key: 'planMiB', head: 'emit --plan said', format: whole },
      { key: 'idleMiB', head: 'MiB before the model', format: whole },
    ],
    rows,
    notes: [
      'Peak: of the whole process, libraries included. Time: the fastest of the rounds. Spread: how much longer the slowest took. Forward: ONNX Runtime with default options for our rows, torch without gradients for the rows of torch.',
      ...(peers ? [] : [NO_PEER]),
    ],
  };
}

const SHOWN = 14;

function operatorTable(id: string, label: string, operators: readonly OperatorTime[]): Table {
  const total = operators.reduce((sum, { ms }) => sum + ms, 0);
  const rest = operators.slice(SHOWN);
  const rows = [
    ...operators.slice(0, SHOWN),
    ...(rest.length === 0
      ? []
      : [
          {
            operator: `${rest.length} others`,
            ms: rest.reduce((sum, { ms }) => sum + ms, 0),
            count: rest.reduce((sum, { count }) => sum + count, 0),
          },
        ]),
  ];
  return {
    id,
    title: `Where a step goes${label}: kernels of the step graph by operator type`,
    columns: [
      { key: 'operator', head: 'operator' },
      { key: 'count', head: 'kernels a step', format: whole },
      { key: 'ms', head: 'ms a step', format: tenths },
      { key: 'share', head: 'share', format: percent },
    ],
    rows: rows.map((row) => ({ ...row, share: row.ms / total })),
  };
}
