import { Command } from 'commander';
import { type EvaluatedModel, type EvaluateResult, evaluate } from '../../runtime/library/evaluate.js';
import { EXIT } from '../errors.js';
import pc from './colour.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { addDataOptions, DATA_HELP, type DataFlags, loadOptions } from './data-options.js';
import { addSessionOptions, type SessionFlags, sessionOptions } from './ep-option.js';
import { evalView } from './eval-view.js';
import { interruptSignal } from './interrupt.js';
import {
  addInputOptions,
  addLossOptions,
  type InputFlags,
  type LossFlags,
  lossOf,
  lossSettings,
} from './loss-options.js';
import { count, words } from './options.js';
import { formatCount, print, printJson, warn } from './output.js';
import { addPeftOptions, type PeftFlags, peftOptions } from './peft-options.js';
import { applyTrainConfig } from './step-options.js';
import { table } from './table.js';

interface EvalFlags extends LossFlags, InputFlags, DataFlags, SessionFlags, PeftFlags {
  readonly data: string;
  readonly adapter?: readonly string[];
  /** False with `--no-base`. */
  readonly base: boolean;
  readonly classes?: readonly string[];
  readonly batchSize?: number;
  readonly anyBase?: boolean;
  readonly config?: string | false;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export function evalCommand(): Command {
  const command = new Command('eval')
    .summary('measure a model, or adapters of it, on data')
    .description(
      'Loss, perplexity where the loss has one, and metrics over a data set: of a base, a model with an adapter inside, or a folded model; with --adapter, of the base and of the base with each of the adapters.',
    )
    .argument('<model>', 'ONNX model')
    .requiredOption('-d, --data <file>', 'data: .jsonl, .safetensors or .txt')
    .option(
      '-a, --adapter <file>',
      'adapter.safetensors of a training run, a folder that Hugging Face PEFT saved, or an .onnx_adapter; repeatable',
      (path: string, previous: readonly string[] = []) => [...previous, path],
    )
    .option('--no-base', 'leave the base out where adapters are given')
    .option('--any-base', 'take adapters that were trained on other weights')
    .option('--quiet', 'no report, only errors and warnings')
    .option('--json', 'print a JSON report');
  addInputOptions(addLossOptions(command.optionsGroup('Loss:'), 'what is measured'));
  addDataOptions(command.optionsGroup('Data:'))
    .option(
      '--classes <names>',
      'names of the classes in the order of the training, where labels are text: a,b,c (default: those of the data, sorted)',
      words,
    )
    .option('--batch-size <n>', 'examples per batch', count);
  addPeftOptions(command);
  return addConfigOptions(addSessionOptions(command))
    .hook('preAction', (_command, verb) => applyTrainConfig(verb))
    .addHelpText(
      'after',
      `${DATA_HELP}
Examples:
  peft-compile eval merged.onnx --loss classification --data val.jsonl --tokenizer tokenizer.json
  peft-compile eval llama.onnx --loss causal-lm --data val.jsonl --tokenizer tokenizer.json \\
      --adapter run/adapter.safetensors --adapter my-peft-adapter/
  peft-compile eval gpt2.onnx --loss causal-lm --data book.txt --tokenizer tokenizer.json --ep webgpu`,
    )
    .action(run);
}

async function run(path: string, flags: EvalFlags): Promise<void> {
  const { data, adapter = [], batchSize, classes } = flags;
  const loss = lossOf(flags, 'Measuring a model', path);
  const { methods } = await loadUserConfig(flags.config);
  const view = evalView(flags.quiet === true || flags.json === true ? 'silent' : 'progress');
  const result = await evaluate({
    model: path,
    adapters: adapter,
    base: flags.base,
    data,
    loss,
    ...lossSettings(flags),
    load: { ...loadOptions(flags), ...(classes === undefined ? {} : { classes }) },
    ...(batchSize === undefined ? {} : { batchSize }),
    methods,
    peft: peftOptions(flags),
    anyBase: flags.anyBase ?? false,
    session: sessionOptions(flags),
    onEvent: view.onEvent,
    signal: interruptSignal(),
  }).finally(() => view.close());
  if (result.reason === 'interrupted') process.exitCode = EXIT.interrupted;
  warnOf(result, classes !== undefined);
  if (flags.json === true) printJson({ model: path, data, ...result });
  else printReport(result);
}

function warnOf({ models, examples, classes }: EvaluateResult, named: boolean): void {
  const left = examples - Math.min(examples, ...models.map((row) => row.examples));
  if (left > 0)
    warn(`${pc.yellow('warning')} ${left} of ${examples} examples do not fill a batch and do not count`);
  for (const { name, loss } of models)
    if (!Number.isFinite(loss)) warn(`${pc.yellow('warning')} the loss of ${name} is ${loss}`);
  if (classes !== undefined && !named)
    warn(
      `note: labels are texts; classes by number: ${classes.map((name, i) => `${i} ${name}`).join(', ')} (--classes if the training had others)`,
    );
}

function printReport({ models, loss, examples, reason }: EvaluateResult): void {
  const base = models.find(({ adapter }) => adapter === null);
  const metrics = Object.keys(models[0]?.metrics ?? {});
  const best = Math.min(...models.map((row) => row.loss));
  const head = ['model', 'loss', 'against base', 'perplexity', ...metrics, 'tokens/s'];
  const rows = models.map((row) => [
    row.name,
    row.loss === best && models.length > 1 ? pc.green(row.loss.toFixed(4)) : row.loss.toFixed(4),
    base === undefined || row === base ? '' : signed(row.loss - base.loss),
    row.perplexity === undefined ? '' : row.perplexity.toFixed(2),
    ...metrics.map((name) => shown(row, name)),
    formatCount(Math.round(row.tokensPerSecond)),
  ]);
  if (models.length > 0)
    print(table(head, rows, [1, 2, 3, ...metrics.map((_, i) => 4 + i), 4 + metrics.length]));
  print(
    reason === 'interrupted'
      ? 'interrupted; models that were not done are left out'
      : `${loss} over ${formatCount(examples)} examples`,
  );
}

function shown({ metrics }: EvaluatedModel, name: string): string {
  return metrics[name]?.toFixed(4) ?? '';
}

function signed(difference: number): string {
  return `${difference < 0 ? '−' : '+'}${Math.abs(difference).toFixed(4)}`;
}
