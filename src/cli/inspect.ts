import { Command } from 'commander';
import { hasGradient } from '../../passes/grad/registry.js';
import { type InspectReport, inspect, type Severity } from '../../passes/inspect/inspect.js';
import { readModel } from '../onnx/index.js';
import pc from './colour.js';
import { formatBytes, formatCount, print, printJson } from './output.js';
import { table } from './table.js';

interface InspectFlags {
  readonly ops?: boolean;
  readonly json?: boolean;
}

export function inspectCommand(): Command {
  return new Command('inspect')
    .summary('show what a model holds and where methods can attach')
    .argument('<model>', 'ONNX model')
    .option('--ops', 'also list the operators and their gradient rules')
    .option('--json', 'print the whole report as JSON')
    .addHelpText(
      'after',
      `
Examples:
  peft-compile inspect model.onnx
  peft-compile inspect model.onnx --json | jq -r '.sites[].path'`,
    )
    .action((path: string, flags: InspectFlags) => {
      const report = inspect(readModel(path), { hasGradient });
      if (flags.json === true) printJson(report);
      else printReport(report, flags.ops === true);
    });
}

const COLOURS: Readonly<Record<Severity, (text: string) => string>> = {
  info: pc.dim,
  warning: pc.yellow,
  error: pc.red,
};

function printReport(report: InspectReport, ops: boolean): void {
  const { model, inputs, outputs, sites, parameters, shared, operators, hazards } = report;
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  print(
    `${pc.bold(model.path ?? 'model')}  ${model.exporter.title}, IR ${model.irVersion}, ${opsets.join(', ')}, ${formatCount(model.nodes)} nodes`,
  );
  for (const { name, type } of inputs) print(`  in   ${name}  ${type}`);
  for (const { name, type } of outputs) print(`  out  ${name}  ${type}`);
  const dtypes = parameters.byDtype.map(({ dtype, elements }) => `${formatCount(elements)} ${dtype}`);
  print(
    `  ${formatCount(parameters.elements)} parameters in ${parameters.tensors} tensors, ${formatBytes(parameters.bytes)} (${dtypes.join(', ')})`,
  );
  print();
  print(
    table(
      ['module', 'kind', 'size', 'op', 'dtype', 'stored', 'path from', ''],
      sites.map((site) => [
        site.path,
        site.kind,
        `${site.rows} × ${site.columns}`,
        site.op,
        site.storedDtype === site.dtype || site.storedDtype === null
          ? site.dtype
          : `${site.dtype} (${site.storedDtype})`,
        site.layout,
        `${site.source} ${site.confidence.toFixed(2)}`,
        [
          site.head ? 'head' : '',
          site.tap === 'weight' ? 'weight form only' : '',
          site.packedIn === null ? '' : `part of ${site.packedIn}`,
          site.sharedWith.length === 0 ? '' : `shares its weight with ${site.sharedWith.join(', ')}`,
          site.conflicts.length === 0 ? '' : `other sources say ${site.conflicts.join(', ')}`,
        ]
          .filter((note) => note !== '')
          .join('; '),
      ]),
      [2],
    ),
  );
  for (const { weight, kind, readers } of shared)
    print(pc.dim(`${kind}: '${weight}' is read by ${readers.join(', ')}`));
  if (ops) {
    print();
    print(
      table(
        ['operator', 'nodes', 'on the way of gradients', 'gradient rule'],
        operators.map(({ op, count, onTrainablePath, gradient }) => [
          op,
          formatCount(count),
          formatCount(onTrainablePath),
          gradient === true ? 'yes' : onTrainablePath > 0 ? pc.red('no') : pc.dim('no'),
        ]),
        [1, 2],
      ),
    );
  }
  if (hazards.length > 0) print();
  for (const { severity, code, message, where, count } of hazards) {
    const places =
      where.length === 0
        ? ''
        : pc.dim(` (${where.join(', ')}${count > where.length ? `, … ${count} in all` : ''})`);
    print(`${COLOURS[severity](`${severity} ${code}`)} ${message}${places}`);
  }
}
