import { Command } from 'commander';
import { methodsOf } from '../../passes/adapter-record.js';
import type { Targeting } from '../../passes/sites/targeting.js';
import { insert } from '../../runtime/library/insert.js';
import { readModel, writeModel } from '../onnx/index.js';
import { loadUserConfig } from './config.js';
import { indexList, integer, number, numberPair, pair } from './options.js';
import { formatCount, formatPercent, print, printJson, warn } from './output.js';
import { table } from './table.js';

interface InsertFlags {
  readonly method: string;
  readonly targets: string[];
  readonly regex?: string;
  readonly exclude?: string[];
  readonly layers?: number[];
  readonly rank?: number;
  readonly alpha?: number;
  readonly rslora?: boolean;
  readonly dropout?: number;
  readonly set?: Record<string, unknown>;
  readonly rankPattern?: Record<string, number>;
  readonly alphaPattern?: Record<string, number>;
  readonly seed: number;
  readonly config?: string;
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function insertCommand(): Command {
  return new Command('insert')
    .summary('insert a PEFT method into a model')
    .description(
      'Insert a PEFT method into a model. The result computes what the base computes until it is trained.',
    )
    .argument('<model>', 'ONNX model')
    .requiredOption('-o, --out <file>', 'where the adapted model goes')
    .option('-m, --method <id>', 'method; see peft-compile methods', 'lora')
    .option('-t, --targets <names...>', 'module names or path endings, or all-linear', ['all-linear'])
    .option('--regex <pattern>', 'regular expression for whole module paths, instead of --targets')
    .option('--exclude <names...>', 'modules to leave out')
    .option('--layers <indices>', 'only these layers, e.g. 0-3,7', indexList)
    .option('--rank <r>', 'rank of the update (lora)', integer)
    .option('--alpha <a>', 'scaling numerator (lora)', number)
    .option('--rslora', 'scale by alpha/√rank (lora)')
    .option('--dropout <p>', 'dropout on the adapter input while training', number)
    .option('--rank-pattern <pattern=r>', 'rank for matching modules; repeatable', numberPair)
    .option('--alpha-pattern <pattern=a>', 'alpha for matching modules; repeatable', numberPair)
    .option('--set <key=value>', 'any other setting of the method; repeatable', pair)
    .option('--seed <n>', 'seed of the initial values', integer, 0)
    .option('--config <file>', 'module that exports methods of your own')
    .option('--force', 'overwrite the output')
    .option('--quiet', 'no report, only errors and warnings')
    .option('--json', 'print a JSON report')
    .addHelpText(
      'after',
      `
Examples:
  peft-compile insert bert.onnx --targets query value --rank 8 --alpha 16 -o adapted.onnx
  peft-compile insert llama.onnx --targets all-linear --rslora --rank 16 -o adapted.onnx
  peft-compile insert gpt2.onnx --targets c_attn --layers 0-5 --dropout 0.1 -o adapted.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: InsertFlags): Promise<void> {
  const user = await loadUserConfig(flags.config);
  const model = readModel(path);
  const report = await insert(model, {
    method: flags.method,
    methods: user.methods,
    config: methodConfig(flags),
    targeting: targetingOf(flags),
    seed: flags.seed,
  });
  await writeModel(model, flags.out, { force: flags.force ?? false });
  if (flags.json === true) {
    printJson({ out: flags.out, ...report });
    return;
  }
  const { record, trainable, base, shared, skipped } = report;
  const rows = record.sites.map(({ path, params }) => [
    path,
    Object.entries(params)
      .map(([role, { shape }]) => `${role} [${shape.join(', ')}]`)
      .join('  '),
  ]);
  print(table(['module', `${methodsOf(record)} parameters`], rows));
  print();
  print(
    `${formatCount(trainable)} trainable of ${formatCount(base)} weights (${formatPercent(trainable / base, 3)}) in ${record.sites.length} modules`,
  );
  print(`written to ${flags.out}`);
  for (const { path, method, reason } of skipped) warn(`note: ${method} leaves ${path} alone: ${reason}`);
  for (const { path, weight, consumers } of shared)
    warn(`note: '${weight}' of ${path} has ${consumers} readers; folding gives ${path} a copy of its own`);
}

/** Settings of the method; only what the user gave, so that the method's own defaults hold. */
function methodConfig({ rank, alpha, rslora, dropout, set }: InsertFlags): Record<string, unknown> {
  const given = { rank, alpha, rslora, dropout };
  return { ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)), ...set };
}

function targetingOf(flags: InsertFlags): Targeting {
  const { targets, regex, exclude, layers, rankPattern, alphaPattern } = flags;
  const [only] = targets;
  return {
    targets: regex ?? (targets.length === 1 && only?.toLowerCase() === 'all-linear' ? only : targets),
    ...(exclude === undefined ? {} : { exclude }),
    ...(layers === undefined ? {} : { layers }),
    ...(rankPattern === undefined ? {} : { rankPattern }),
    ...(alphaPattern === undefined ? {} : { alphaPattern }),
  };
}
