/** `emit`: the verb, its targets, and the options that belong to each of them. */
import { Command } from 'commander';
import { MANIFEST_FILE } from '../../../runtime/artifacts.js';
import { readModel } from '../../onnx/index.js';
import { choice } from '../choice.js';
import { loadUserConfig } from '../config.js';
import { addConfigOptions } from '../config-option.js';
import { addOptionGroups, type OptionGroup } from '../option-groups.js';
import { writing } from '../options.js';
import { addGraphOptions, applyTrainConfig } from '../step-options.js';
import { type AdaptedFlags, addAdaptedOptions, addAdapterInputOptions, emitForInference } from './adapted.js';
import type { Emission } from './common.js';
import { addOrtTrainingOptions, emitForOrtTraining, type OrtTrainingFlags } from './ort-training.js';
import { addStepTargetOptions, emitForStep, type StepTargetFlags } from './step.js';

type TargetId = 'step' | 'ort-training' | 'adapted';

interface EmitFlags extends StepTargetFlags, OrtTrainingFlags, AdaptedFlags {
  readonly target: TargetId;
  readonly config?: string | false;
}

const TARGETS: Readonly<Record<TargetId, (emission: Emission<EmitFlags>) => Promise<void>>> = {
  step: emitForStep,
  'ort-training': emitForOrtTraining,
  adapted: emitForInference,
};

const GROUPS: readonly OptionGroup<EmitFlags>[] = [
  {
    needs: '--target step or ort-training',
    fits: ({ target }) => target !== 'adapted',
    add: addGraphOptions,
  },
  { needs: '--target step', fits: ({ target }) => target === 'step', add: addStepTargetOptions },
  {
    needs: '--target ort-training',
    fits: ({ target }) => target === 'ort-training',
    add: addOrtTrainingOptions,
  },
  { needs: '--target adapted', fits: ({ target }) => target === 'adapted', add: addAdaptedOptions },
  {
    needs: '--target adapted --adapter-io inputs',
    fits: ({ target, adapterIo }) => target === 'adapted' && adapterIo === 'inputs',
    add: addAdapterInputOptions,
  },
];

export function emitCommand(): Command {
  const command = new Command('emit')
    .summary('emit training graphs, or the adapted inference graph')
    .description(
      `Emit graphs from an adapted model.

  step          forward, backward, clipping and optimizer in standard ONNX ops:
                tensors in, tensors out, for any ONNX Runtime. The folder holds
                the graphs, ${MANIFEST_FILE} (what to feed and what comes back)
                and the first parameters.
  ort-training  what ONNX Runtime's on-device training API loads:
                training_model.onnx, eval_model.onnx, optimizer_model.onnx and
                checkpoint.
  adapted       the inference graph with the adapter beside the base weights: as
                it was inserted, or trained, for which the base model and
                --adapter are given.`,
    )
    .argument('<model>', 'model that peft-compile insert wrote; the base model with --adapter')
    .option('-o, --out <path>', 'folder (step, ort-training) or file (adapted)')
    .addOption(choice('--target <id>', 'what to emit', Object.keys(TARGETS)).default('step'))
    .addOption(
      choice('--weights <mode>', 'how external data of the base gets to another folder', [
        'copy',
        'link',
      ]).default('copy'),
    );
  addConfigOptions(writing(command)).hook('preAction', (_command, verb) => applyTrainConfig(verb));
  const refuseMisplaced = addOptionGroups(command, GROUPS);
  return command
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
    .action(async (path: string, flags: EmitFlags) => {
      refuseMisplaced(flags, `--target ${flags.target}`);
      const { methods = [] } = await loadUserConfig(flags.config);
      await TARGETS[flags.target]({ model: readModel(path), path, flags, methods });
    });
}
