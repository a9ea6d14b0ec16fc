/** Options that say how the names of foreign adapters are matched with the modules of a model. */
import type { Command } from 'commander';
import type { AttachTrainedOptions } from '../../runtime/library/attach.js';
import { readModuleMap } from '../../runtime/peft/map-file.js';

export interface PeftFlags {
  readonly map?: string;
  readonly baseWeights?: string;
}

export function addPeftOptions(command: Command): Command {
  return command
    .optionsGroup('Adapters of other tools:')
    .option('--map <file>', 'JSON: module in the PEFT folder to module of the model, where names differ')
    .option(
      '--base-weights <file>',
      'model.safetensors of the base: modules of a PEFT folder are found by the numbers of their weights',
    );
}

export function peftOptions({ map, baseWeights }: PeftFlags): NonNullable<AttachTrainedOptions['peft']> {
  return {
    ...(map === undefined ? {} : { map: readModuleMap(map) }),
    ...(baseWeights === undefined ? {} : { baseWeights }),
  };
}
