import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type { Method } from '../../passes/methods/contract/method.js';
import { emitStep } from '../../passes/targets/step.js';
import { artifactsInMemory, MANIFEST_FILE, type TrainArtifacts } from '../../runtime/artifacts.js';
import type { TrainOptions } from '../../runtime/train/options.js';
import type { ScheduleConfig } from '../../runtime/train/schedule.js';
import { train } from '../../runtime/train/train.js';
import { EXIT, fail } from '../errors.js';
import { readModel } from '../onnx/index.js';
import pc from './colour.js';
import { loadUserConfig } from './config.js';
import { addDataOptions, DATA_HELP, type DataFlags, loadOptions } from './data-options.js';
import { defined } from './defined.js';
import { addSessionOptions, type SessionFlags, sessionOptions } from './ep-option.js';
import { interruptSignal } from './interrupt.js';
import { lossCurve } from './loss-curve.js';
import { lossOf } from './loss-options.js';
import { count, integer, number } from './options.js';
import { formatCount, print, printJson } from './output.js';
import { addStepOptions, SETTLED, type StepFlags, stepOptions } from './step-options.js';
import { trainView } from './train-view.js';

interface TrainFlags extends StepFlags, DataFlags, SessionFlags {
  readonly data: string;
  readonly evalData?: string;
  readonly validation?: number;
  readonly out: string;
  readonly epochs?: number;
  readonly steps?: number;
  readonly batchSize?: number;
  readonly microBatch?: number;
  readonly seed: number;
  readonly evalEvery?: number;
  readonly patience?: number;
  readonly checkpointEvery?: number;
  readonly resume?: boolean | string;
  readonly force?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Examples per optimizer step where nothing says otherwise. */
const DEFAULT_BATCH = 8;

export function trainCommand(): Command {
  const command = new Command('train')
    .summary('train the adapter of an adapted model')
    .description(
      'Train the adapter of an adapted model, or drive the graphs that emit wrote. Writes adapter.safetensors, log.jsonl and checkpoints to the output folder; Ctrl-C saves a checkpoint that --resume continues exactly.',
    )
    .argument('<model>', 'adapted ONNX model, or a folder of peft-compile emit --target step')
    .requiredOption('-d, --data <file>', 'training data: .jsonl, .safetensors or .txt')
    .requiredOption('-o, --out <folder>', 'where the adapter, log and checkpoints go')
    .option('--resume [checkpoint]', 'continue an interrupted run')
    .option('--force', 'replace the results of an earlier run')
    .option('--quiet', 'no progress')
    .option('--json', 'print a JSON report')
    .optionsGroup('Data:')
    .option('--eval-data <file>', 'data to evaluate on')
    .option('--validation <share>', 'hold out this share of the data, e.g. 0.1', number);
  addDataOptions(command)
    .optionsGroup('Course of the run:')
    .option('--epochs <n>', 'passes over the data', number)
    .option('--steps <n>', 'optimizer steps at most', count)
    .option(
      '--batch-size <n>',
      'examples per optimizer step; times --accumulation where that is given',
      count,
    )
    .addOption(
      new Option(
        '--micro-batch <n>',
        'examples per forward and backward pass: the same steps in less memory, often faster',
      )
        .argParser(count)
        .conflicts('accumulation'),
    )
    .option('--seed <n>', 'seed of order, split and dropout', integer, 0)
    .option('--eval-every <steps>', 'evaluate every so many steps', count)
    .option('--patience <n>', 'stop after n evaluations without improvement', count)
    .option('--checkpoint-every <steps>', 'checkpoint every so many steps', count);
  return addSessionOptions(addStepOptions(command))
    .addHelpText(
      'after',
      `${DATA_HELP}
Examples:
  peft-compile train adapted.onnx --loss causal-lm --data book.txt --tokenizer tokenizer.json -o run
  peft-compile train adapted.onnx --loss causal-lm --batch-size 32 --micro-batch 4 --data book.txt \\
      --tokenizer tokenizer.json --eval-data more.txt --eval-every 100 --patience 3 -o run
  peft-compile train adapted.onnx --loss classification --data train.jsonl --validation 0.1 --tokenizer tokenizer.json \\
      --lr 5e-4 --schedule linear --warmup 50 --clip 1 --epochs 3 -o run`,
    )
    .action(run);
}

async function run(path: string, given: TrainFlags, command: Command): Promise<void> {
  const emitted = existsSync(join(path, MANIFEST_FILE));
  // Emitted graphs have settled the size of their passes.
  const flags = emitted ? given : withMicroBatches(given);
  const { methods } = await loadUserConfig(flags.config);
  const artifacts = emitted ? path : await artifactsOf(path, flags, methods);
  const overrides = emitted ? overridesOf(path, command) : {};
  const view = trainView(flags.quiet === true || flags.json === true ? 'silent' : 'progress');
  const result = await train({
    ...trainOptions(flags),
    ...overrides,
    methods,
    artifacts,
    onEvent: view.onEvent,
    signal: interruptSignal(),
  }).finally(() => view.close());
  if (result.reason === 'interrupted') process.exitCode = EXIT.interrupted;
  if (flags.json === true) {
    const { params: _tensors, ...report } = result;
    return printJson(report);
  }
  if (flags.quiet !== true && result.losses.length > 1) print(lossCurve(result.losses));
  const last = result.evals.at(-1);
  if (last !== undefined)
    print(
      `validation loss ${last.loss.toFixed(4)}${last.perplexity === undefined ? '' : `, perplexity ${last.perplexity.toFixed(2)}`}`,
    );
  const stored = result.stored === result.trainable ? '' : ` (${formatCount(result.stored)} stored)`;
  print(
    `${formatCount(result.trainable)} weights trained${stored} for ${result.steps} steps in ${result.seconds.toFixed(1)} s`,
  );
  if (result.adapter !== undefined) print(`adapter ${pc.green(result.adapter)}`);
  else if (result.checkpoint === undefined) print('interrupted before the first step; start again');
  else print(`interrupted; continue with --resume (checkpoint ${result.checkpoint})`);
}

/** Splits the examples of an optimizer step into passes over `microBatch` of them. */
function withMicroBatches(flags: TrainFlags): TrainFlags {
  const { microBatch, batchSize = DEFAULT_BATCH } = flags;
  if (microBatch === undefined) return flags;
  if (batchSize % microBatch !== 0)
    return fail('E_USAGE', {
      message: `--micro-batch ${microBatch} does not divide --batch-size ${batchSize}`,
      remedy: 'Give a divisor of the batch size.',
    });
  return { ...flags, batchSize: microBatch, accumulation: batchSize / microBatch };
}

/** Flags that emitted graphs leave open; what else shapes a graph was settled when it was emitted. */
const OPEN: Readonly<Record<string, keyof ScheduleConfig>> = {
  lr: 'learningRate',
  schedule: 'id',
  warmup: 'warmupSteps',
};

/** What flags given on the command line change about emitted graphs. Throws E_USAGE for those that cannot. */
function overridesOf(path: string, command: Command): Pick<TrainOptions, 'schedule'> {
  const cli = (flag: string) => command.getOptionValueSource(flag) === 'cli';
  const fixed = command.options.filter(
    (option) =>
      (SETTLED.has(option.attributeName()) || option.attributeName() === 'microBatch') &&
      !(option.attributeName() in OPEN) &&
      cli(option.attributeName()),
  );
  if (fixed.length > 0)
    fail('E_USAGE', {
      message: `${fixed.map(({ long }) => long).join(', ')} cannot change graphs that are emitted already`,
      where: path,
      remedy: 'Give it to peft-compile emit, or train the adapted model itself.',
    });
  const flags = command.opts<Record<string, unknown>>();
  const schedule = Object.fromEntries(
    Object.entries(OPEN).flatMap(([flag, field]) => (cli(flag) ? [[field, flags[flag]]] : [])),
  );
  return Object.keys(schedule).length === 0 ? {} : { schedule };
}

/** Training graphs of an adapted model. */
async function artifactsOf(
  path: string,
  flags: TrainFlags,
  methods: readonly Method[],
): Promise<TrainArtifacts> {
  const model = readModel(path);
  const loss = lossOf(flags, 'Training an adapted model', path);
  return artifactsInMemory(emitStep(model, stepOptions({ ...flags, loss }, methods, flags.ep)), model);
}

function trainOptions(flags: TrainFlags): Omit<TrainOptions, 'artifacts'> {
  const { data, out, seed, evalData, validation, epochs, steps, batchSize, evalEvery, patience } = flags;
  const { checkpointEvery, resume, force } = flags;
  const given = {
    evalData,
    validation,
    epochs,
    maxSteps: steps,
    batchSize,
    evalEvery,
    patience,
    checkpointEvery,
    resume,
    force,
  };
  return { data, out, seed, ...defined(given), load: loadOptions(flags), session: sessionOptions(flags) };
}
