import { Command } from 'commander';
import { SHARED_POLICIES, type SharedPolicy } from '../../passes/fold/plan.js';
import { type FoldReport, fold } from '../../runtime/fold/fold.js';
import { QUANTISED_CHOICES, type QuantisedChoice } from '../../runtime/quantize/choice.js';
import { COMBINATIONS, PRUNING, RANKED } from '../../runtime/weighted/combinations.js';
import { EXIT, fail } from '../errors.js';
import { DTYPE_CODES } from '../types.js';
import { choice } from './choice.js';
import pc from './colour.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { addEpOptions, type EpFlags, epOptions } from './ep-option.js';
import { addOptionGroups, type OptionGroup } from './option-groups.js';
import { count, number, numbers, writing } from './options.js';
import { formatPercent, print, printJson, warn } from './output.js';
import { addPeftOptions, type PeftFlags, peftOptions } from './peft-options.js';
import { table } from './table.js';
import { printWritten } from './written.js';

interface FoldFlags extends EpFlags, PeftFlags {
  readonly adapter: readonly string[];
  readonly weights?: readonly number[];
  readonly combine?: string;
  readonly density?: number;
  readonly combineRank?: number;
  readonly out?: string;
  readonly verify?: boolean;
  readonly dryRun?: boolean;
  readonly shared: SharedPolicy;
  readonly computeDtype: 'float32' | 'float64';
  readonly externalData?: 'keep' | 'inline' | 'file';
  readonly keep?: boolean;
  readonly quantised: QuantisedChoice;
  readonly anyBase?: boolean;
  readonly config?: string | false;
  readonly force?: boolean;
  readonly json?: boolean;
}

const GROUPS: readonly OptionGroup<FoldFlags>[] = [
  { needs: 'several --adapter', fits: ({ adapter }) => adapter.length > 1, add: addCombinationOptions },
];

export function foldCommand(): Command {
  const command = writing(
    new Command('fold')
      .summary('fold an adapter into the weights of its base model')
      .description(
        "Fold an adapter into the weights of its base model. The merged model is the base's own graph with other numbers: that is proved after writing, tensor by tensor and node by node.",
      )
      .argument('<model>', 'base ONNX model')
      .requiredOption(
        '-a, --adapter <file>',
        'adapter.safetensors of a training run, a folder that Hugging Face PEFT saved, or an .onnx_adapter; repeatable',
        (path: string, previous: readonly string[] = []) => [...previous, path],
      )
      .option('-o, --out <file>', 'where the merged model goes')
      .option('--verify', 'run the unfolded and the merged model on the same inputs and compare')
      .option('--dry-run', 'print the plan and write nothing')
      .optionsGroup('How it is folded:')
      .addOption(
        choice(
          '--shared <policy>',
          'weights that others read too: copy them, change them for all, or refuse',
          SHARED_POLICIES,
        ).default('clone'),
      )
      .addOption(
        choice('--compute-dtype <dtype>', 'precision the formula is evaluated in', [
          'float32',
          'float64',
        ]).default('float32'),
      )
      .addOption(
        choice(
          '--external-data <mode>',
          "where weights go: as in the base, into the model, or into a file beside it (default: keep where the base's data lies beside the output, else file)",
          ['keep', 'inline', 'file'],
        ),
      )
      .option('--keep', 'fold what folds and leave the rest of the adapter in the graph')
      .addOption(
        choice(
          '--quantised <choice>',
          'where the weight is quantised: keep the adapter beside it, fold into floats in its place, or store the folded floats as integers again',
          QUANTISED_CHOICES,
        ).default('keep'),
      )
      .option('--weights <numbers...>', 'one weight per adapter (default: 1 each)', numbers)
      .option('--any-base', 'fold into weights other than those of the training run, or a second time'),
  );
  const refuseMisplaced = addOptionGroups(addConfigOptions(addEpOptions(addPeftOptions(command))), GROUPS);
  return command
    .addHelpText(
      'after',
      `
Examples:
  peft-compile fold bert.onnx --adapter run/adapter.safetensors --dry-run
  peft-compile fold bert.onnx --adapter run/adapter.safetensors --verify -o merged.onnx
  peft-compile fold llama.onnx --adapter my-peft-adapter/ --verify -o merged.onnx
  peft-compile fold llama.onnx --adapter first/ --adapter second/ --weights 0.7 0.3 -o merged.onnx`,
    )
    .action(async (path: string, flags: FoldFlags) => {
      refuseMisplaced(flags, `--adapter ${flags.adapter.join(', ')}`);
      refuseUnread(flags);
      await run(path, flags, command);
    });
}

function addCombinationOptions(command: Command): Command {
  return command
    .addOption(
      choice(
        '--combine <type>',
        'how they are made one, as in PEFT; cat is the exact sum (default: cat)',
        Object.keys(COMBINATIONS),
      ),
    )
    .option('--density <share>', 'share of the entries that ties, dare and magnitude_prune keep', number)
    .option('--combine-rank <r>', 'rank that svd combinations keep', count);
}

/** Throws E_USAGE for settings that the combination does not read. */
function refuseUnread({ combine = 'cat', density, combineRank }: FoldFlags): void {
  const refuse = (flag: string, readers: readonly string[]) =>
    fail('E_USAGE', {
      message: `${flag} means nothing to the combination '${combine}'`,
      remedy: `Leave it away, or give --combine ${readers.join(', ')}`,
    });
  if (density !== undefined && !PRUNING.includes(combine)) refuse('--density', PRUNING);
  if (combineRank !== undefined && !RANKED.includes(combine)) refuse('--combine-rank', RANKED);
}

async function run(path: string, flags: FoldFlags, command: Command): Promise<void> {
  if (flags.out === undefined && flags.dryRun !== true)
    command.error('error: give --out <file>, or --dry-run for the plan alone', { exitCode: EXIT.usage });
  const user = await loadUserConfig(flags.config);
  const report = await fold({
    model: path,
    adapter: flags.adapter,
    ...(flags.dryRun === true || flags.out === undefined ? {} : { out: flags.out }),
    verify: flags.verify ?? false,
    shared: flags.shared,
    computeDtype: flags.computeDtype,
    keep: flags.keep ?? false,
    quantised: flags.quantised,
    anyBase: flags.anyBase ?? false,
    force: flags.force ?? false,
    write: flags.externalData === undefined ? {} : { externalData: flags.externalData },
    methods: user.methods,
    session: epOptions(flags),
    combine: {
      ...(flags.weights === undefined ? {} : { weights: flags.weights }),
      ...(flags.combine === undefined ? {} : { combination: flags.combine }),
      ...(flags.density === undefined ? {} : { density: flags.density }),
      ...(flags.combineRank === undefined ? {} : { rank: flags.combineRank }),
    },
    peft: peftOptions(flags),
  });
  if (flags.json === true) printJson(report);
  else printReport(report);
  if (report.verification?.pass === false) process.exitCode = EXIT.verification;
}

function printReport(report: FoldReport): void {
  const { tensors, copies, impossible, changes, proof, verification, out, files } = report;
  const rows = tensors.map(({ name, sites, dtype, dims, fidelity }) => [
    sites.join(', '),
    name,
    `${dtype}[${dims.join(', ')}]`,
    fidelity === undefined ? '' : fidelity.relativeUpdate.toExponential(2),
    fidelity === undefined ? '' : formatPercent(fidelity.unchanged, 1),
    fidelity === undefined ? '' : formatPercent(fidelity.updateError, 2),
  ]);
  print(table(['module', 'tensor', 'type', '‖Δ‖/‖W‖', 'unchanged', 'update lost'], rows, [3, 4, 5]));
  for (const { of, name, sites } of copies)
    warn(
      `note: '${of}' is shared; ${sites.length === 0 ? 'its other readers' : sites.join(', ')} got the copy '${name}'`,
    );
  const kept = impossible.filter(({ quantised }) => quantised === true);
  if (kept.length > 0)
    warn(
      `${pc.yellow('kept')} ${kept.length} ${kept.length === 1 ? 'module stands' : 'modules stand'} beside quantised weights and cost time in every run (${kept[0]?.path}, …); --quantised requantise folds into the integers, dequantise replaces them by floats`,
    );
  for (const { path, method, reason } of impossible.filter(({ quantised }) => quantised !== true))
    warn(`${pc.yellow('not folded')} ${method} at ${path}: ${reason}`);
  for (const change of changes) warn(`${pc.yellow('changed')} ${change}`);
  const quantised = tensors.some(({ dtype }) => !(dtype in DTYPE_CODES));
  const worst = Math.max(0, ...tensors.map(({ fidelity }) => fidelity?.updateError ?? 0));
  if (worst > 0.05)
    warn(
      `${pc.yellow('warning')} up to ${formatPercent(worst, 0)} of an update is lost to rounding; ${quantised ? '--quantised keep or dequantise keeps it' : 'fold into a wider dtype to keep it'}`,
    );
  if (proof !== undefined) {
    const graph =
      changes.length === 0 && kept.length === 0
        ? `same graph: ${proof.nodes} nodes equal to the base's`
        : `${proof.nodes} nodes are the base's, but for what is named above`;
    print(
      `${pc.green('proved')} ${graph}, ${proof.untouched} tensors unchanged byte for byte, ${tensors.length} with new numbers`,
    );
  }
  if (verification !== undefined) {
    const verdict = verification.pass ? `${pc.green('verified')} against` : `${pc.red('differs')} from`;
    print(
      `${verdict} the unfolded model: worst difference ${verification.worst.relative.toExponential(2)} of output scale (tolerance ${verification.tolerance.toExponential(0)})`,
    );
  }
  if (out !== undefined) printWritten(out, files);
}
