/** `emit --target step`: its options and its report. */
import type { Command } from 'commander';
import { emitStep } from '../../../passes/targets/step.js';
import { writeArtifacts } from '../../../runtime/artifacts.js';
import { PROVIDERS } from '../../../runtime/ep/index.js';
import { forDevice, type StepDevice } from '../../../runtime/library/emit.js';
import { fail } from '../../errors.js';
import { countOf } from '../../types.js';
import { choice } from '../choice.js';
import { sizes } from '../options.js';
import { formatCount, print, printJson } from '../output.js';
import type { StepFlags } from '../step-options.js';
import { type CommonFlags, type Emission, outOf } from './common.js';
import { type PlanSizes, printMemoryPlans } from './memory-plan.js';
import { trainingOptions } from './training.js';

export interface StepTargetFlags extends CommonFlags, StepFlags {
  readonly plan?: true | readonly PlanSizes[];
  readonly device?: string;
  readonly sizes?: readonly PlanSizes[];
}

/** Providers whose graphs have a form of their own. */
const DEVICES = [...PROVIDERS.values()].filter(({ needs }) => needs !== undefined).map(({ id }) => id);

export function addStepTargetOptions(command: Command): Command {
  return command
    .option(
      '--plan [sizes]',
      'estimate the memory of training for batches such as batch=8,sequence=128, and write nothing; repeatable',
      sizes,
    )
    .addOption(choice('--device <id>', 'the form that stays on a device, for batches of --sizes', DEVICES))
    .option('--sizes <sizes>', 'sizes of a batch for --device, such as batch=4,sequence=64', sizes);
}

export async function emitForStep(emission: Emission<StepTargetFlags>): Promise<void> {
  const { model, flags } = emission;
  const { plan, json = false } = flags;
  const device = deviceOf(flags);
  const out = plan === undefined ? outOf(flags) : '';
  const emitted = forDevice(emitStep(model, trainingOptions(emission, device?.id)), device);
  if (plan !== undefined) return printMemoryPlans(emitted, plan === true ? [{}] : plan, json);
  const files = await writeArtifacts(out, emitted, model, {
    force: flags.force ?? false,
    weights: flags.weights,
  });
  const { manifest, ...graphs } = emitted;
  if (json) return printJson({ target: flags.target, files, manifest });
  for (const [name, graph] of Object.entries(graphs))
    print(`${name.padEnd(7)} ${formatCount(graph.graph.nodeCount)} nodes`);
  const trained = manifest.params.reduce((sum, { shape }) => sum + countOf(shape), 0);
  print(`${formatCount(trained)} trained weights in ${manifest.params.length} tensors`);
  print(
    `feeds  ${manifest.batch.map(({ name, dtype, shape }) => `${name} ${dtype}[${shape.map((d) => d ?? '?').join(', ')}]`).join('  ')}`,
  );
  print(`written to ${out}`);
}

function deviceOf({ device, sizes }: StepTargetFlags): StepDevice | undefined {
  if (device !== undefined) return { id: device, sizes: sizes?.at(-1) ?? {} };
  if (sizes === undefined) return undefined;
  return fail('E_USAGE', {
    message: '--sizes goes with --device',
    remedy: `Give --device (${DEVICES.join(', ')}); graphs without one take batches of all sizes`,
  });
}
