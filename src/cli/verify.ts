import { Command } from 'commander';
import type { Tensors } from '../../runtime/session.js';
import { type VerifyReport, verify } from '../../runtime/verify.js';
import { EXIT } from '../errors.js';
import pc from './colour.js';
import { addEpOptions, type EpFlags, epOptions } from './ep-option.js';
import { readInputs } from './given-inputs.js';
import { integer, number, sizes } from './options.js';
import { formatPercent, print, printJson, warn } from './output.js';
import { table } from './table.js';

interface VerifyFlags extends EpFlags {
  readonly tolerance?: number;
  readonly seed: number;
  readonly sizes?: Record<string, number>[];
  readonly inputs?: string[];
  readonly structure?: boolean;
  readonly json?: boolean;
}

export function verifyCommand(): Command {
  const command = new Command('verify')
    .summary('compare what two models compute')
    .description(
      'Run two models on the same inputs and compare every output: random inputs at several shapes, unless --sizes or --inputs say otherwise.',
    )
    .argument('<a>', 'ONNX model')
    .argument('<b>', 'ONNX model')
    .option('--tolerance <t>', 'largest accepted difference relative to the scale of an output', number)
    .option('--seed <n>', 'seed of the inputs', integer, 0)
    .option('--sizes <sizes>', 'sizes of the free axes, e.g. batch=2,sequence=16; repeatable', sizes)
    .option(
      '--inputs <file...>',
      '.safetensors files with a tensor for every input, instead of random inputs',
    )
    .option('--structure', 'also require the same nodes in the same order')
    .option('--quiet', 'no report; the exit status is the answer')
    .option('--json', 'print a JSON report');
  return addEpOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile verify base.onnx merged.onnx --structure
  peft-compile verify a.onnx b.onnx --sizes batch=1,sequence=128 --sizes batch=4,sequence=7 --tolerance 1e-4`,
    )
    .action(run);
}

async function run(a: string, b: string, flags: VerifyFlags): Promise<void> {
  const inputs: Tensors[] = [];
  for (const path of flags.inputs ?? []) inputs.push(await readInputs(path));
  const report = await verify(a, b, {
    seed: flags.seed,
    structure: flags.structure ?? false,
    session: epOptions(flags),
    ...(flags.tolerance === undefined ? {} : { tolerance: flags.tolerance }),
    ...(flags.sizes === undefined ? {} : { sizes: flags.sizes }),
    ...(inputs.length === 0 ? {} : { inputs }),
  });
  if (!report.pass) process.exitCode = EXIT.verification;
  if (flags.json === true) printJson(report);
  else printReport(report);
}

function printReport(report: VerifyReport): void {
  const rows = report.cases.flatMap(({ label, outputs }) =>
    outputs.map(({ name, dims, maxAbs, relative, cosine, top1, pass }) => [
      label,
      name,
      `[${dims.join(', ')}]`,
      maxAbs.toExponential(2),
      relative.toExponential(2),
      cosine.toFixed(6),
      top1 === undefined ? '' : formatPercent(top1, 1),
      pass ? pc.green('ok') : pc.red('differs'),
    ]),
  );
  print(
    table(['case', 'output', 'shape', 'max |a−b|', 'relative', 'cosine', 'top-1', ''], rows, [3, 4, 5, 6]),
  );
  if (report.widened)
    warn('note: bfloat16 arithmetic was done in float32; this runtime has no bfloat16 kernels');
  if (typeof report.structure === 'string') print(pc.red(`structure differs: ${report.structure}`));
  else if (report.structure === null) print(pc.green('same nodes in the same order'));
  const tolerance = report.tolerance.toExponential(1);
  const equal = report.cases.every(({ pass }) => pass);
  print(
    equal
      ? pc.green(`equal within ${tolerance}`)
      : pc.red(
          `differs: ${report.worst.output} by ${report.worst.relative.toExponential(2)} (tolerance ${tolerance})`,
        ),
  );
}
