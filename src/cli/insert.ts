import { Command } from 'commander';
import { methodsOf } from '../../passes/adapter-record.js';
import type { InsertReport } from '../../passes/insert/insert.js';
import { insert } from '../../runtime/library/insert.js';
import { readModel, writeModel } from '../onnx/index.js';
import { type CompositionFlags, compose } from './composition.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { indexList, integer, number, numberPair, pair, words, writing } from './options.js';
import { formatCount, formatPercent, print, printJson, warn } from './output.js';
import { table } from './table.js';

interface InsertFlags extends CompositionFlags {
  readonly seed?: number;
  readonly config?: string | false;
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function insertCommand(): Command {
  const command = writing(
    new Command('insert')
      .summary('insert PEFT methods into a model')
      .description(
        'Insert a PEFT method, or several, into a model. The result computes what the base computes until it is trained, unless the method says otherwise.',
      )
      .argument('<model>', 'ONNX model')
      .requiredOption('-o, --out <file>', 'where the adapted model goes')
      .option('--seed <n>', 'seed of the initial values (default: 0)', integer)
      .optionsGroup('What is inserted:')
      .option(
        '-m, --method <id>',
        'method or preset, see peft-compile methods; repeatable, in the order in which they stack (default: those of the config file, else lora)',
        words,
      )
      .option('--rank <r>', 'rank of the update, for methods that have one', integer)
      .option('--alpha <a>', 'scaling numerator, for methods that have one', number)
      .option('--rslora', 'scale by alpha/√rank (lora)')
      .option('--dropout <p>', 'dropout on the adapter input while training', number)
      .option('--rank-pattern <pattern=r>', 'rank for matching modules; repeatable', numberPair)
      .option('--alpha-pattern <pattern=a>', 'alpha for matching modules; repeatable', numberPair)
      .option(
        '--set <key=value>',
        'any other setting; lora.key=value for one of several methods; repeatable',
        pair,
      )
      .optionsGroup('Where:')
      .option(
        '-t, --targets <names...>',
        "module names or path endings, role:query, all-linear or all; lora:query for one of several methods (default: the method's own)",
      )
      .option('--regex <pattern>', 'regular expression for whole module paths, instead of --targets')
      .option('--exclude <names...>', 'modules to leave out')
      .option('--layers <indices>', 'only these layers, e.g. 0-3,7', indexList)
      .option(
        '--modules-to-save <names...>',
        'train these modules in full as well, such as a new classifier',
      ),
  );
  return addConfigOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile insert bert.onnx --targets query value --rank 8 --alpha 16 -o adapted.onnx
  peft-compile insert llama.onnx --targets all-linear --rslora --rank 16 -o adapted.onnx
  peft-compile insert gpt2.onnx --targets c_attn --layers 0-5 --dropout 0.1 -o adapted.onnx
  peft-compile insert bert.onnx --method lora --method ln-tuning --modules-to-save classifier -o adapted.onnx
  peft-compile insert bert.onnx --method mam -o adapted.onnx
  peft-compile insert bert.onnx --config peft-compile.config.yaml -o adapted.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: InsertFlags): Promise<void> {
  const user = await loadUserConfig(flags.config);
  const entries = compose(flags, user);
  const model = readModel(path);
  const report = await insert(model, {
    entries,
    methods: user.methods,
    presets: user.presets,
    seed: flags.seed ?? user.seed ?? 0,
  });
  await writeModel(model, flags.out, { force: flags.force ?? false });
  if (flags.json === true) {
    printJson({ out: flags.out, ...report });
    return;
  }
  printReport(report);
  print(`written to ${flags.out}`);
}

function printReport({ record, trainable, base, shared, skipped, opened }: InsertReport): void {
  for (const [entry, { method }] of record.entries.entries()) {
    const rows = record.sites
      .filter((site) => site.entry === entry)
      .map(({ path, params }) => [
        path,
        Object.entries(params)
          .map(([role, { shape }]) => `${role} [${shape.join(', ')}]`)
          .join('  '),
      ]);
    print(table(['module', `${method} parameters`], rows));
    print();
  }
  const modules = new Set(record.sites.map(({ path }) => path)).size;
  print(
    `${formatCount(trainable)} trainable of ${formatCount(base)} weights (${formatPercent(trainable / base, 3)}) in ${modules} modules`,
  );
  if (opened.length > 0)
    warn(
      `note: ${methodsOf(record)} acts inside ${opened.length === 1 ? 'a fused operator, which was' : `${opened.length} fused operators, which were`} taken apart: ${opened.join(', ')}`,
    );
  for (const { path, method, reason } of skipped) warn(`note: ${method} leaves ${path} alone: ${reason}`);
  for (const { path, weight, consumers } of shared)
    warn(`note: '${weight}' of ${path} has ${consumers} readers; folding gives ${path} a copy of its own`);
}
