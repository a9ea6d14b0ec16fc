import { Command } from 'commander';
import { FORMATS, type FormatId } from '../../passes/quantize/formats.js';
import { type QuantizeReport, quantize } from '../../runtime/quantize/quantize.js';
import { EXIT } from '../errors.js';
import { choice } from './choice.js';
import pc from './colour.js';
import { indexList, integer, number, writing } from './options.js';
import { formatPercent, print, printJson, warn } from './output.js';
import { table } from './table.js';
import { printWritten } from './written.js';

interface QuantizeFlags {
  readonly out?: string;
  readonly format: FormatId;
  readonly blockSize?: number;
  readonly asymmetric?: boolean;
  readonly targets?: string[];
  readonly exclude?: string[];
  readonly layers?: number[];
  readonly verify?: boolean;
  readonly tolerance?: number;
  readonly dryRun?: boolean;
  readonly externalData?: 'keep' | 'inline' | 'file';
  readonly force?: boolean;
  readonly json?: boolean;
}

export function quantizeCommand(): Command {
  return writing(
    new Command('quantize')
      .summary('store the weights of linears as integers of 4 or 8 bits')
      .description(
        'Store the weights of linears as integers, the base of QLoRA: adapters are inserted beside them, trained through them and folded by choice (fold --quantised).',
      )
      .argument('<model>', 'ONNX model')
      .option('-o, --out <file>', 'where the quantised model goes')
      .option('--verify', 'run both models on the same inputs and report the difference')
      .option(
        '--tolerance <t>',
        'largest accepted difference, relative to the scale of an output; with --verify',
        number,
      )
      .option('--dry-run', 'print what would be stored how, and write nothing')
      .optionsGroup('Storage:')
      .addOption(
        choice('-f, --format <format>', 'how weights are stored', Object.keys(FORMATS)).default('int4'),
      )
      .option(
        '--block-size <n>',
        "numbers that share a scale: 16 to 256 (default: the format's own)",
        integer,
      )
      .option('--asymmetric', 'zero points beside the scales: a little more accurate, a little larger')
      .addOption(
        choice(
          '--external-data <mode>',
          "where weights go: as in the model, into it, or into a file beside it (default: keep where the model's data lies beside the output, else file)",
          ['keep', 'inline', 'file'],
        ),
      )
      .optionsGroup('Which weights:')
      .option('-t, --targets <names...>', 'module names or path endings (default: all-linear)')
      .option('--exclude <names...>', 'modules to leave out')
      .option('--layers <indices>', 'only these layers, e.g. 0-3,7', indexList),
  )
    .addHelpText(
      'after',
      `
Formats:
${Object.entries(FORMATS)
  .map(([id, { summary, runs }]) => `  ${id.padEnd(9)} ${summary}\n            runs on ${runs}`)
  .join('\n')}

Examples:
  peft-compile quantize llama.onnx -o llama-int4.onnx --verify
  peft-compile quantize llama.onnx --format nf4 --block-size 64 -o llama-nf4.onnx
  peft-compile insert llama-int4.onnx --targets all-linear -o adapted.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: QuantizeFlags, command: Command): Promise<void> {
  if (flags.out === undefined && flags.dryRun !== true)
    command.error('error: give --out <file>, or --dry-run for the plan alone', { exitCode: EXIT.usage });
  const report = await quantize({
    model: path,
    ...(flags.dryRun === true || flags.out === undefined ? {} : { out: flags.out }),
    format: flags.format,
    ...(flags.blockSize === undefined ? {} : { blockSize: flags.blockSize }),
    symmetric: flags.asymmetric !== true,
    targeting: {
      targets: targetsOf(flags.targets),
      ...(flags.exclude === undefined ? {} : { exclude: flags.exclude }),
      ...(flags.layers === undefined ? {} : { layers: flags.layers }),
    },
    verify: flags.tolerance === undefined ? (flags.verify ?? false) : { tolerance: flags.tolerance },
    force: flags.force ?? false,
    write: flags.externalData === undefined ? {} : { externalData: flags.externalData },
  });
  if (flags.json === true) printJson(report);
  else printReport(report);
  if (report.verification?.pass === false) process.exitCode = EXIT.verification;
}

/** One word may be a keyword. */
function targetsOf(targets: string[] = ['all-linear']): string | string[] {
  const [only] = targets;
  return targets.length === 1 && (only === 'all-linear' || only === 'all') ? only : targets;
}

function printReport({ tensors, skipped, runs, verification, out, files }: QuantizeReport): void {
  const rows = tensors.map(({ sites, dims, dtype, bytes: [before, after], accuracy }) => [
    sites.join(', '),
    `[${dims.join(', ')}]`,
    dtype,
    `${(before / after).toFixed(1)}×`,
    accuracy === undefined ? '' : formatPercent(accuracy.relativeError, 2),
    accuracy === undefined ? '' : accuracy.largestError.toExponential(2),
  ]);
  print(table(['module', 'in, out', 'stored as', 'smaller', '‖Q−W‖/‖W‖', 'largest'], rows, [3, 4, 5]));
  for (const { path, reason } of skipped) warn(`${pc.yellow('left as it is')} ${path}: ${reason}`);
  print(`runs on ${runs}`);
  if (verification !== undefined) {
    const { relative, output } = verification.worst;
    const verdict = verification.pass ? `${pc.green('compared')} with` : `${pc.red('differs')} from`;
    print(
      `${verdict} the float model: worst difference ${formatPercent(relative, 2)} of the scale of '${output}'`,
    );
  }
  if (out !== undefined) printWritten(out, files);
}
