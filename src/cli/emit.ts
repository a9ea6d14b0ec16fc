import { Command } from 'commander';
import { LOSSES } from '../../passes/losses/index.js';
import { emitAdapted } from '../../passes/targets/adapted.js';
import { emitStep } from '../../passes/targets/step.js';
import { MANIFEST_FILE, writeArtifacts } from '../../runtime/artifacts.js';
import { attach } from '../../runtime/library/attach.js';
import { fail } from '../errors.js';
import { readModel, writeModel } from '../onnx/index.js';
import { choice } from './choice.js';
import { loadUserConfig } from './config.js';
import { writing } from './options.js';
import { formatCount, print, printJson } from './output.js';
import { addStepOptions, type StepFlags, stepOptions } from './step-options.js';

interface EmitFlags extends StepFlags {
  readonly target: 'step' | 'adapted';
  readonly adapterIo: 'weights' | 'inputs';
  readonly adapter?: string;
  readonly anyBase?: boolean;
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function emitCommand(): Command {
  const command = writing(
    new Command('emit')
      .summary('emit training graphs, or the adapted inference graph')
      .description(
        `Emit graphs from an adapted model.
  step     forward, backward, clipping and optimizer in standard ONNX ops: tensors in, tensors out, for any ONNX Runtime.
           The folder holds the graphs, ${MANIFEST_FILE} (what to feed and what comes back) and the first parameters.
  adapted  the inference graph with the adapter beside the base weights: as it was inserted, or trained, for which
           the base model and --adapter are given.`,
      )
      .argument('<model>', 'model that peft-compile insert wrote; the base model with --adapter')
      .requiredOption('-o, --out <path>', 'folder (step) or file (adapted)')
      .addOption(choice('--target <id>', 'what to emit', ['step', 'adapted']).default('step'))
      .addOption(
        choice(
          '--adapter-io <mode>',
          'adapted target: adapters as weights, or as required inputs that serve many adapters',
          ['weights', 'inputs'],
        ).default('weights'),
      )
      .option('-a, --adapter <file>', 'adapted target: the trained adapter to put into the base model')
      .option('--any-base', 'take an adapter that was trained on other weights'),
  );
  return addStepOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile emit adapted.onnx --loss causal-lm --clip 1 -o step/
  peft-compile emit adapted.onnx --loss classification --accumulation 4 -o step/
  peft-compile emit base.onnx --target adapted --adapter run/adapter.safetensors -o serving.onnx
  peft-compile emit adapted.onnx --target adapted --adapter-io inputs -o serving.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: EmitFlags): Promise<void> {
  const model = readModel(path);
  const force = flags.force ?? false;
  const { methods } = await loadUserConfig(flags.config);
  if (flags.target === 'adapted') {
    if (flags.adapter !== undefined)
      await attach(model, flags.adapter, { methods, anyBase: flags.anyBase ?? false });
    await writeModel(emitAdapted(model, { adapterIo: flags.adapterIo }), flags.out, { force });
    if (flags.json === true) printJson({ target: flags.target, files: [flags.out] });
    else print(`written to ${flags.out}`);
    return;
  }
  if (flags.adapter !== undefined)
    return fail('E_USAGE', {
      message: '--adapter goes with --target adapted',
      remedy: 'Training graphs start from the model that peft-compile insert wrote',
    });
  const { loss } = flags;
  if (loss === undefined)
    return fail('E_USAGE', {
      message: 'The step target needs --loss',
      where: path,
      remedy: `One of ${[...LOSSES.keys()].join(', ')}`,
    });
  const emitted = emitStep(model, stepOptions({ ...flags, loss }, methods));
  const files = await writeArtifacts(flags.out, emitted, model, { force });
  const { manifest, ...graphs } = emitted;
  if (flags.json === true) return printJson({ target: flags.target, files, manifest });
  for (const [name, graph] of Object.entries(graphs))
    print(`${name.padEnd(7)} ${formatCount(graph.graph.nodeCount)} nodes`);
  const trained = manifest.params.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  print(`${formatCount(trained)} trained weights in ${manifest.params.length} tensors`);
  print(
    `feeds  ${manifest.batch.map(({ name, dtype, shape }) => `${name} ${dtype}[${shape.map((d) => d ?? '?').join(', ')}]`).join('  ')}`,
  );
  print(`written to ${flags.out}`);
}
