import { Command, Option } from 'commander';
import { unfuseAttention } from '../../passes/normalize/unfuse.js';
import type { Pass } from '../../passes/pass.js';
import { type EditLog, type RunOptions, runPasses } from '../../passes/runner.js';
import { fail } from '../errors.js';
import { inferModel } from '../infer/index.js';
import { didYouMean } from '../nearest.js';
import { readModel, writeModel } from '../onnx/index.js';
import { loadUserConfig, type UserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { count, writing } from './options.js';
import { print, printJson } from './output.js';
import { table } from './table.js';

/** Passes that need no config module. */
const SHIPPED: readonly Pass[] = [unfuseAttention];

interface RunFlags {
  readonly config?: string | false;
  readonly out: string;
  readonly pass?: readonly string[];
  readonly validate: NonNullable<RunOptions['validate']>;
  readonly stopAfter?: number;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function runCommand(): Command {
  const command = writing(
    new Command('run')
      .summary('run passes of your own over a model')
      .description(
        `Run the passes of a config module over a model, in their order, and write the result. Those that ship go by name: ${SHIPPED.map(({ name, summary }) => `${name} ${summary}`).join('; ')}.`,
      )
      .argument('<model>', 'ONNX model')
      .requiredOption('-o, --out <file>', 'where the model goes')
      .option('--pass <names...>', 'only these passes, in this order')
      .addOption(
        new Option('--validate <when>', 'check invariants after each edit, each pass, or never')
          .choices(['edit', 'pass', 'off'])
          .default('pass'),
      )
      .option('--stop-after <n>', 'stop after n edits, to find the one that broke a model', count),
  );
  return addConfigOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile run model.onnx --pass unfuse-attention -o unfused.onnx
  peft-compile run model.onnx --config peft-compile.config.js --validate edit -o rewritten.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: RunFlags): Promise<void> {
  const user = await loadUserConfig(flags.config);
  const model = readModel(path);
  inferModel(model);
  const { log, complete } = runPasses(model, chosen(user, flags), {
    validate: flags.validate,
    ...(flags.stopAfter === undefined ? {} : { stopAfter: flags.stopAfter }),
  });
  await writeModel(model, flags.out, { force: flags.force ?? false });
  if (flags.json === true) return printJson({ out: flags.out, complete, log });
  const row = ({ pass, label, added, removed, redirected, initializers }: EditLog) => [
    pass,
    label,
    ...[added, removed, redirected, initializers].map(String),
  ];
  if (log.length > 0)
    print(table(['pass', 'edit', 'added', 'removed', 'redirected', 'constants'], log.map(row), [2, 3, 4, 5]));
  print(complete ? `${log.length} edits` : `stopped after ${log.length} edits`);
  print(`written to ${flags.out}`);
}

/** All passes of the module, or those named. */
function chosen({ passes, path }: UserConfig, { pass: names }: RunFlags): readonly Pass[] {
  const where = path === undefined ? {} : { where: path };
  const all = [...passes, ...SHIPPED];
  const known = all.map(({ name }) => name);
  if (names !== undefined)
    return names.map(
      (wanted) =>
        all.find(({ name }) => name === wanted) ??
        fail('E_NO_MATCH', {
          message: `There is no pass '${wanted}'${path === undefined ? '' : ' in the config file'}`,
          ...where,
          remedy: didYouMean(wanted, known),
        }),
    );
  if (passes.length > 0) return passes;
  return fail('E_USAGE', {
    message: path === undefined ? 'There is no config file with passes' : 'The config file brings no passes',
    ...where,
    remedy: `Write \`export default defineConfig({ passes })\` into peft-compile.config.mjs, give --config, or name one that ships: --pass ${SHIPPED.map(({ name }) => name).join(', ')}`,
  });
}
