import { Command, InvalidArgumentError } from 'commander';
import { COMBINE_BY, type CombineBy } from '../../passes/combine/combine.js';
import { combine } from '../../runtime/library/combine.js';
import { choice } from './choice.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { writing } from './options.js';
import { print, printJson, warn } from './output.js';
import { table } from './table.js';

interface CombineFlags {
  readonly adapter: Record<string, string>;
  readonly input: string;
  readonly by: CombineBy;
  readonly none: boolean;
  readonly trainable?: boolean;
  readonly anyBase?: boolean;
  readonly config?: string | false;
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function combineCommand(): Command {
  const command = writing(
    new Command('combine')
      .summary('put several trained adapters into one model')
      .description(
        'Put several trained adapters of one base into one inference model. An int64 input chooses among them: one for the run, or one for every row of the batch; index 0 is the base itself.',
      )
      .argument('<model>', 'base ONNX model')
      .requiredOption(
        '-a, --adapter <name=file>',
        'adapter.safetensors of a training run, a folder of PEFT or an .onnx_adapter, under a name; repeatable, in the order of the indices',
        named,
      )
      .requiredOption('-o, --out <file>', 'where the combined model goes')
      .optionsGroup('The choice:')
      .addOption(
        choice(
          '--by <what>',
          'choose for a whole run (int64 scalar), or for every row of the batch (int64 [batch])',
          COMBINE_BY,
        ).default('run'),
      )
      .option('--input <name>', 'name of the input that chooses', 'adapter')
      .option('--no-none', 'leave out the entry for the base; indices then start with the first adapter')
      .option('--trainable', 'by row: keep the adapters apart, for train to go on with them together')
      .option('--any-base', 'take adapters that were trained on other weights'),
  );
  return addConfigOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile combine base.onnx --adapter fr=fr/adapter.safetensors --adapter de=de/adapter.safetensors -o multi.onnx
  peft-compile combine base.onnx --by row --adapter fr=fr/adapter.safetensors --adapter de=de/adapter.safetensors -o mixed.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: CombineFlags): Promise<void> {
  const { adapter, input, by, none, trainable = false, out, anyBase = false, force = false } = flags;
  const { methods } = await loadUserConfig(flags.config);
  const { model: _model, ...report } = await combine({
    model: path,
    adapters: adapter,
    input,
    by,
    none,
    trainable,
    anyBase,
    methods,
    out,
    force,
  });
  if (flags.json === true) return printJson({ out, ...report });
  const { names, modules, separate } = report;
  print(
    table(
      [report.input, 'adapter', 'from'],
      names.map((name, index) => [`${index}`, name, adapter[name] ?? 'the base']),
    ),
  );
  print();
  print(
    `${Object.keys(adapter).length} adapters in ${modules} modules, chosen by the input '${report.input}'${by === 'row' ? ' for every row of the batch' : ''}`,
  );
  if (separate > 0)
    warn(
      `note: at ${separate} of the modules adapters differ in structure, and all of them are computed at every run`,
    );
  print(`written to ${out}`);
}

/** Collects `name=file`. */
function named(text: string, previous: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1) throw new InvalidArgumentError('Give name=file.');
  const name = text.slice(0, at);
  if (Object.hasOwn(previous, name)) throw new InvalidArgumentError(`Two adapters are named '${name}'.`);
  // A name that is a number would be put in front of the others.
  if (/^\d+$/.test(name)) throw new InvalidArgumentError('A name is no number.');
  return { ...previous, [name]: text.slice(at + 1) };
}
