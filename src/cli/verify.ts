import { Command } from 'commander';
import pc from 'picocolors';
import { verify } from '../../runtime/verify.js';
import { EXIT } from '../errors.js';
import { integer, number } from './options.js';
import { formatPercent, print, printJson, table } from './output.js';

interface VerifyFlags {
  readonly tolerance?: number;
  readonly seed: number;
  readonly structure?: boolean;
  readonly json?: boolean;
}

export function verifyCommand(): Command {
  return new Command('verify')
    .summary('compare what two models compute')
    .description('Run two models on the same random inputs at several shapes and compare every output.')
    .argument('<a>', 'ONNX model')
    .argument('<b>', 'ONNX model')
    .option('--tolerance <t>', 'largest accepted difference relative to the scale of an output', number)
    .option('--seed <n>', 'seed of the inputs', integer, 0)
    .option('--structure', 'also require the same nodes in the same order')
    .option('--json', 'print a JSON report')
    .action(run);
}

async function run(a: string, b: string, flags: VerifyFlags): Promise<void> {
  const report = await verify(a, b, {
    seed: flags.seed,
    structure: flags.structure ?? false,
    ...(flags.tolerance === undefined ? {} : { tolerance: flags.tolerance }),
  });
  if (!report.pass) process.exitCode = EXIT.verification;
  if (flags.json === true) return printJson(report);
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
  if (typeof report.structure === 'string') print(`structure differs: ${report.structure}`);
  print(
    report.pass
      ? pc.green(`equal within ${report.tolerance.toExponential(1)}`)
      : pc.red(
          `differs: ${report.worst.output} by ${report.worst.relative.toExponential(2)} (tolerance ${report.tolerance.toExponential(1)})`,
        ),
  );
}
