import { Command } from 'commander';
import { LOSSES } from '../../passes/losses/index.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { DIALECTS } from '../../passes/targets/dialects.js';
import { SCALE_PLACES, type ScalePlace } from '../../passes/targets/serving.js';
import { emitStep } from '../../passes/targets/step.js';
import { MANIFEST_FILE, writeArtifacts } from '../../runtime/artifacts.js';
import { PROVIDERS } from '../../runtime/ep/index.js';
import { writeOnnxAdapter } from '../../runtime/export/onnx-adapter/write.js';
import { attach } from '../../runtime/library/attach.js';
import { emit, forDevice, type StepDevice } from '../../runtime/library/emit.js';
import { serve } from '../../runtime/library/serving.js';
import { fail } from '../errors.js';
import type { Model } from '../model.js';
import { readModel } from '../onnx/index.js';
import { choice } from './choice.js';
import { loadUserConfig } from './config.js';
import { addOrtTrainingOptions, emitForOrtTraining, type OrtTrainingFlags } from './emit-ort-training.js';
import { type PlanSizes, printMemoryPlans } from './memory-plan.js';
import { sizes, writing } from './options.js';
import { formatCount, print, printJson, warn } from './output.js';
import { addStepOptions, type StepFlags, stepOptions } from './step-options.js';

interface EmitFlags extends StepFlags, Omit<OrtTrainingFlags, keyof StepFlags | 'out'> {
  readonly target: 'step' | 'ort-training' | 'adapted';
  readonly adapterIo: 'weights' | 'inputs';
  readonly names: string;
  readonly scale: ScalePlace;
  readonly rank: 'free' | 'fixed';
  readonly dtype?: 'float32' | 'float16';
  readonly none?: string;
  readonly optional?: boolean;
  readonly weights: 'link' | 'copy';
  readonly adapter?: string;
  readonly anyBase?: boolean;
  readonly out?: string;
  readonly plan?: true | readonly PlanSizes[];
  readonly device?: string;
  readonly sizes?: readonly PlanSizes[];
  readonly force?: boolean;
  readonly json?: boolean;
}

/** Where all is to be written. */
interface WrittenFlags extends EmitFlags {
  readonly out: string;
}

/** Providers whose graphs have a form of their own. */
const DEVICES = [...PROVIDERS.values()].filter(({ needs }) => needs !== undefined).map(({ id }) => id);

export function emitCommand(): Command {
  const command = writing(
    new Command('emit')
      .summary('emit training graphs, or the adapted inference graph')
      .description(
        `Emit graphs from an adapted model.
  step     forward, backward, clipping and optimizer in standard ONNX ops: tensors in, tensors out, for any ONNX Runtime.
           The folder holds the graphs, ${MANIFEST_FILE} (what to feed and what comes back) and the first parameters.
  ort-training  what ONNX Runtime's on-device training API loads: training_model.onnx, eval_model.onnx,
           optimizer_model.onnx and checkpoint.
  adapted  the inference graph with the adapter beside the base weights: as it was inserted, or trained, for which
           the base model and --adapter are given.`,
      )
      .argument('<model>', 'model that peft-compile insert wrote; the base model with --adapter')
      .option('-o, --out <path>', 'folder (step, ort-training) or file (adapted)')
      .addOption(choice('--target <id>', 'what to emit', ['step', 'ort-training', 'adapted']).default('step'))
      .addOption(
        choice(
          '--adapter-io <mode>',
          'adapted target: adapters as weights, or as required inputs that serve many adapters',
          ['weights', 'inputs'],
        ).default('weights'),
      )
      .addOption(
        choice(
          '--names <dialect>',
          'names of adapter inputs, as export --format onnx_adapter has them',
          DIALECTS.map(({ id }) => id),
        ).default('own'),
      )
      .addOption(
        choice(
          '--scale <place>',
          'adapter inputs: alpha/r is part of the B that is fed, an input, or in the graph',
          SCALE_PLACES,
        ).default('factor'),
      )
      .addOption(
        choice(
          '--rank <mode>',
          'adapter inputs: of any rank, 0 for none, or of the ranks that the adapter has',
          ['free', 'fixed'],
        ).default('free'),
      )
      .addOption(
        choice('--dtype <type>', 'element type of adapter inputs; default: that of the model', [
          'float32',
          'float16',
        ]),
      )
      .option(
        '--optional',
        'adapter inputs: no adapter is their default (C, C++, C#, Java, Python, ORT GenAI; JavaScript ignores what is fed then)',
      )
      .option('--none <file>', 'adapter inputs: also write the .onnx_adapter that stands for no adapter')
      .addOption(
        choice('--weights <mode>', 'how external data of the base gets to another folder', [
          'copy',
          'link',
        ]).default('copy'),
      )
      .option(
        '--plan [sizes]',
        'step target: estimate the memory of training for batches such as batch=8,sequence=128, and write nothing; repeatable',
        sizes,
      )
      .addOption(
        choice(
          '--device <id>',
          'step target: the form that stays on a device, for batches of --sizes',
          DEVICES,
        ),
      )
      .option('--sizes <sizes>', 'sizes of a batch for --device, such as batch=4,sequence=64', sizes)
      .option('-a, --adapter <file>', 'adapted target: the trained adapter to put into the base model')
      .option('--any-base', 'take an adapter that was trained on other weights'),
  );
  return addOrtTrainingOptions(addStepOptions(command))
    .addHelpText(
      'after',
      `
Examples:
  peft-compile emit adapted.onnx --loss causal-lm --clip 1 -o step/
  peft-compile emit adapted.onnx --loss classification --accumulation 4 -o step/
  peft-compile emit adapted.onnx --loss causal-lm --plan batch=8,sequence=128 --recompute
  peft-compile emit adapted.onnx --loss causal-lm --device webgpu --sizes batch=4,sequence=64 -o page/
  peft-compile emit adapted.onnx --target ort-training --loss causal-lm --schedule linear --steps 500 -o on-device/
  peft-compile emit base.onnx --target adapted --adapter run/adapter.safetensors -o serving.onnx
  peft-compile emit base.onnx --target adapted --adapter run/adapter.safetensors --adapter-io inputs -o serving.onnx`,
    )
    .action(run);
}

async function run(path: string, flags: EmitFlags): Promise<void> {
  const model = readModel(path);
  const force = flags.force ?? false;
  const { methods } = await loadUserConfig(flags.config);
  const { plan } = flags;
  const out = flags.out ?? (plan === undefined ? missingOut() : '');
  if (flags.target === 'adapted') return emitForInference(model, { ...flags, out }, methods);
  if (flags.adapter !== undefined)
    return fail('E_USAGE', {
      message: '--adapter goes with --target adapted',
      remedy: 'Training graphs start from the model that peft-compile insert wrote',
    });
  const { loss } = flags;
  if (loss === undefined)
    return fail('E_USAGE', {
      message: `The ${flags.target} target needs --loss`,
      where: path,
      remedy: `One of ${[...LOSSES.keys()].join(', ')}`,
    });
  const options = stepOptions({ ...flags, loss }, methods);
  if (flags.target === 'ort-training') return emitForOrtTraining(model, options, { ...flags, out });
  const emitted = forDevice(emitStep(model, options), deviceOf(flags));
  if (plan !== undefined) return printMemoryPlans(emitted, plan === true ? [{}] : plan, flags.json ?? false);
  const files = await writeArtifacts(out, emitted, model, { force });
  const { manifest, ...graphs } = emitted;
  if (flags.json === true) return printJson({ target: flags.target, files, manifest });
  for (const [name, graph] of Object.entries(graphs))
    print(`${name.padEnd(7)} ${formatCount(graph.graph.nodeCount)} nodes`);
  const trained = manifest.params.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  print(`${formatCount(trained)} trained weights in ${manifest.params.length} tensors`);
  print(
    `feeds  ${manifest.batch.map(({ name, dtype, shape }) => `${name} ${dtype}[${shape.map((d) => d ?? '?').join(', ')}]`).join('  ')}`,
  );
  print(`written to ${out}`);
}

function missingOut(): never {
  return fail('E_USAGE', { message: '--out is missing', remedy: 'Say where the result goes: -o <path>' });
}

function deviceOf({ device, sizes }: EmitFlags): StepDevice | undefined {
  return device === undefined ? undefined : { id: device, sizes: sizes?.at(-1) ?? {} };
}

async function emitForInference(
  model: Model,
  flags: WrittenFlags,
  methods: readonly Method[] | undefined,
): Promise<void> {
  const {
    adapterIo,
    names,
    scale,
    rank,
    dtype,
    adapter,
    none: nonePath,
    optional = false,
    weights,
    out,
  } = flags;
  const files = [out];
  const options = {
    names,
    scale,
    rank,
    ...(dtype === undefined ? {} : { dtype }),
    ...(methods === undefined ? {} : { methods }),
    out,
    force: flags.force ?? false,
    write: { weights },
  };
  const anyBase = flags.anyBase ?? false;
  if ((nonePath !== undefined || optional) && (adapterIo !== 'inputs' || adapter === undefined))
    fail('E_USAGE', {
      message: '--none and --optional go with --adapter-io inputs and --adapter',
      remedy: 'Give the base model and the adapter: values that mean no adapter can depend on both',
    });
  if (adapterIo === 'inputs' && adapter !== undefined) {
    const { none } = await serve({ model, adapter, anyBase, optional, ...options });
    if (nonePath !== undefined) {
      if (typeof none === 'string') fail('E_UNSUPPORTED', { message: none, where: nonePath });
      await writeOnnxAdapter(nonePath, none, { force: options.force });
      files.push(nonePath);
    } else if (typeof none === 'string') warn(`note: ${none}`);
  } else {
    if (adapter !== undefined) await attach(model, adapter, { methods: methods ?? [], anyBase });
    await emit(model, { target: 'adapted', adapterIo, ...options });
  }
  if (flags.json === true) printJson({ target: flags.target, files });
  else print(`written to ${files.join(', ')}`);
}
