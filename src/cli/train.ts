import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import pc from 'picocolors';
import { emitStep } from '../../passes/targets/step.js';
import { artifactsInMemory, MANIFEST_FILE, type TrainArtifacts } from '../../runtime/artifacts.js';
import type { TrainOptions } from '../../runtime/train/options.js';
import { train } from '../../runtime/train/train.js';
import { EXIT, fail } from '../errors.js';
import type { Model } from '../model.js';
import { readModel } from '../onnx/index.js';
import { interruptSignal } from './interrupt.js';
import { lossCurve } from './loss-curve.js';
import { count, integer, number } from './options.js';
import { formatCount, print, printJson } from './output.js';
import { addStepOptions, type StepFlags, stepOptions } from './step-options.js';
import { trainView } from './train-view.js';

interface TrainFlags extends StepFlags {
  readonly data: string;
  readonly evalData?: string;
  readonly validation?: number;
  readonly tokenizer?: string;
  readonly maxLength?: number;
  readonly base?: string;
  readonly out: string;
  readonly epochs?: number;
  readonly steps?: number;
  readonly batchSize?: number;
  readonly seed: number;
  readonly evalEvery?: number;
  readonly patience?: number;
  readonly checkpointEvery?: number;
  readonly resume?: boolean | string;
  readonly threads?: number;
  readonly lowMemory?: boolean;
  readonly force?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export function trainCommand(): Command {
  const command = new Command('train')
    .summary('train the adapter of an adapted model')
    .description(
      'Train the adapter of an adapted model, or drive the graphs that emit wrote. Writes adapter.safetensors, log.jsonl and checkpoints to the output folder; Ctrl-C saves a checkpoint that --resume continues exactly.',
    )
    .argument('<model>', 'adapted ONNX model, or a folder of peft-compile emit --target step')
    .requiredOption('-d, --data <file>', 'training data: .jsonl, .safetensors or .txt')
    .requiredOption('-o, --out <folder>', 'where the adapter, log and checkpoints go')
    .option('--eval-data <file>', 'data to evaluate on')
    .option('--validation <share>', 'hold out this share of the data, e.g. 0.1', number)
    .option('--tokenizer <file>', 'tokenizer.json, for texts')
    .option('--max-length <n>', 'longest token sequence; block length of plain text', count)
    .option('--epochs <n>', 'passes over the data', number)
    .option('--steps <n>', 'optimizer steps at most', count)
    .option('--batch-size <n>', 'examples per micro-batch', count)
    .option('--seed <n>', 'seed of order, split and dropout', integer, 0)
    .option('--eval-every <steps>', 'evaluate every so many steps', count)
    .option('--patience <n>', 'stop after n evaluations without improvement', count)
    .option('--checkpoint-every <steps>', 'checkpoint every so many steps', count)
    .option('--resume [checkpoint]', 'continue an interrupted run')
    .option('--threads <n>', 'threads of ONNX Runtime', count)
    .option('--low-memory', 'trade speed for memory: use the weights as they lie in the file, without a repacked copy')
    .option('--force', 'replace the results of an earlier run')
    .option('--quiet', 'no progress')
    .option('--json', 'print a JSON report');
  return addStepOptions(command)
    .addHelpText(
      'after',
      `
Data:
  .txt                 running text, cut into blocks (causal-lm)
  .jsonl               {"text": …} or {"text": …, "label": …} lines with --tokenizer, or named arrays of numbers
  .safetensors         named tensors whose first axis is the example

Examples:
  peft-compile train adapted.onnx --loss causal-lm --data book.txt --tokenizer tokenizer.json -o run
  peft-compile train adapted.onnx --loss classification --data train.jsonl --validation 0.1 --tokenizer tokenizer.json \\
      --lr 5e-4 --schedule linear --warmup 50 --clip 1 --epochs 3 -o run`,
    )
    .action(run);
}

async function run(path: string, flags: TrainFlags): Promise<void> {
  const artifacts = await artifactsFor(path, flags);
  const view = trainView(flags.quiet === true || flags.json === true ? 'silent' : 'progress');
  const result = await train({
    ...trainOptions(flags),
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
  print(
    `${formatCount(result.trainable)} weights trained for ${result.steps} steps in ${result.seconds.toFixed(1)} s`,
  );
  if (result.adapter !== undefined) print(`adapter ${pc.green(result.adapter)}`);
  else print(`interrupted; continue with --resume (checkpoint ${result.checkpoint ?? 'none'})`);
}

/** Artifacts of a folder, or emitted on the spot from an adapted model. */
async function artifactsFor(path: string, flags: TrainFlags): Promise<TrainArtifacts | string> {
  if (existsSync(join(path, MANIFEST_FILE))) return path;
  const model: Model = readModel(path);
  const { loss } = flags;
  if (loss === undefined)
    return fail('E_USAGE', {
      message: 'Training an adapted model needs --loss',
      where: path,
      remedy: 'E.g. --loss causal-lm or --loss classification',
    });
  return artifactsInMemory(emitStep(model, stepOptions({ ...flags, loss })), model);
}

function trainOptions(flags: TrainFlags): Omit<TrainOptions, 'artifacts'> {
  const { data, out, seed, evalData, validation, epochs, steps, batchSize, evalEvery, patience } = flags;
  const { checkpointEvery, resume, force, tokenizer, maxLength, threads, lowMemory } = flags;
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
  const load = { tokenizer, maxLength };
  const session = {
    threads,
    ...(lowMemory === true ? { prepack: false } : {}),
  };
  return { data, out, seed, ...defined(given), load: defined(load), session: defined(session) };
}

/** The entries that hold a value. */
function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
