/** A trained adapter beside the weights of its base: how methods that do not fold are served. */
import { hasAdapterRecord } from '../../passes/adapter-record.js';
import { type AttachOptions as AttachSettings, attachAdapter } from '../../passes/insert/insert.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { type AdapterFile, modelTensors, readAdapter } from '../adapter-file.js';
import { digestWeights } from '../digest.js';
import type { ReadPeftOptions } from '../peft/read.js';

export interface AttachTrainedOptions extends AttachSettings {
  /** Also take an adapter that was trained on other weights. */
  readonly anyBase?: boolean;
  /** How a folder that PEFT saved is read. */
  readonly peft?: Pick<ReadPeftOptions, 'map' | 'baseWeights'>;
}

/**
 * Puts a trained adapter into its base model, in place and unfolded: what `emit` with `target: 'adapted'` writes for
 * inference. `adapter` is a file of a training run, or a folder that Hugging Face PEFT saved.
 * @throws E_UNSUPPORTED when the model holds an adapter already, E_INVALID_DATA for an adapter of another base,
 * E_NO_MATCH for a module that the model lacks.
 */
export async function attach(
  model: Model,
  adapter: string | AdapterFile,
  { anyBase = false, peft, ...settings }: AttachTrainedOptions = {},
): Promise<void> {
  const where = model.path === undefined ? {} : { where: model.path };
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      ...where,
      remedy: 'Give the base model that the adapter was inserted into',
    });
  const { methods, paths } = settings;
  const file =
    typeof adapter === 'string'
      ? await readAdapter(adapter, {
          base: model,
          ...peft,
          ...(methods === undefined ? {} : { methods }),
          ...(paths === undefined ? {} : { paths }),
        })
      : adapter;
  const { base } = file.record;
  if (!anyBase && base !== undefined && base !== (await digestWeights(model)))
    fail('E_INVALID_DATA', {
      message: 'The adapter was trained on other weights than those of this model',
      ...where,
      remedy: 'Give the base of the training run, or pass --any-base (anyBase: true)',
    });
  attachAdapter(model, file.record, await modelTensors(file), settings);
}
