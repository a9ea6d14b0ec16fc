/** From a checkpoint of ONNX Runtime's training back to the adapter. */
import {
  ADAPTER_METADATA_KEY,
  type AdapterRecord,
  allParams,
  hasAdapterRecord,
  parseAdapterRecord,
  readAdapterRecord,
  trainableParams,
} from '../../passes/adapter-record.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { writeAdapter } from '../adapter-file.js';
import { type CollapsedAdapter, collapseAdapter } from '../collapse.js';
import type { OrtCheckpoint } from './checkpoint.js';
import { readCheckpoint } from './read-checkpoint.js';
import { differenceOf } from './same-adapter.js';

/**
 * The adapter that a checkpoint stands for.
 * @param model The training or eval model, or the adapted one: gives the record where the checkpoint lost it, and the
 * tensors of the base from which structure that only training needs is evaluated.
 * @param where Name of the checkpoint for messages.
 * @throws E_INVALID_DATA for a checkpoint without a record, of another adapter or base, or without values.
 */
export async function adapterOfOrtCheckpoint(
  checkpoint: OrtCheckpoint,
  model?: Model,
  where = 'checkpoint',
): Promise<CollapsedAdapter> {
  const record = recordOf(checkpoint, model, where);
  if (checkpoint.nominal)
    return fail('E_INVALID_DATA', {
      message: 'A nominal checkpoint holds names and no values',
      where,
      remedy: 'Give a checkpoint that was saved after training',
    });
  const tensors = new Map<string, Tensor>();
  const stored = new Map([...(model?.graph.initializers ?? [])].map(({ name, tensor }) => [name, tensor]));
  for (const { key, name, shape, trainable } of allParams(record)) {
    const tensor =
      checkpoint.trainable.get(key) ??
      checkpoint.frozen.get(key) ??
      (trainable ? undefined : stored.get(name));
    if (tensor === undefined || tensor.dims.join() !== shape.join())
      return fail('E_INVALID_DATA', {
        message: `The checkpoint's '${key}' is ${tensor === undefined ? 'missing' : `[${tensor.dims.join(', ')}]`}, the adapter's record says [${shape.join(', ')}]`,
        where,
        remedy: 'Give a checkpoint of this adapter, or the models that it was trained with',
      });
    tensors.set(key, tensor);
  }
  const known = new Set(trainableParams(record).map(({ key }) => key));
  for (const key of checkpoint.trainable.keys())
    if (!known.has(key))
      return fail('E_INVALID_DATA', {
        message: `The checkpoint's '${key}' is no parameter of the adapter`,
        where,
        remedy: 'Give the models that the checkpoint was trained with',
      });
  return collapseAdapter({ record, tensors }, model);
}

/** Reads a checkpoint and writes the adapter file that it stands for. Throws as `adapterOfOrtCheckpoint`, and E_EXISTS. */
export async function writeOrtAdapter(
  checkpoint: string,
  out: string,
  options: { readonly model?: Model; readonly force?: boolean } = {},
): Promise<CollapsedAdapter> {
  const adapter = await adapterOfOrtCheckpoint(readCheckpoint(checkpoint), options.model, checkpoint);
  await writeAdapter(out, adapter.record, adapter.tensors, { force: options.force ?? false });
  return adapter;
}

function recordOf({ properties }: OrtCheckpoint, model: Model | undefined, where: string): AdapterRecord {
  const text = properties.get(ADAPTER_METADATA_KEY);
  const own = typeof text === 'string' ? parseAdapterRecord(text, where) : undefined;
  const given = model !== undefined && hasAdapterRecord(model) ? readAdapterRecord(model) : undefined;
  if (own?.base !== undefined && given?.base !== undefined && own.base !== given.base)
    return fail('E_INVALID_DATA', {
      message: 'The checkpoint was trained on other base weights than the model has',
      where,
      remedy: 'Give the models that it was trained with',
    });
  const difference = own === undefined || given === undefined ? undefined : differenceOf(own, given);
  if (difference !== undefined)
    return fail('E_INVALID_DATA', {
      message: `The checkpoint holds another adapter than the model: ${difference}`,
      where,
      remedy: 'Give the models that it was trained with',
    });
  return (
    own ??
    given ??
    fail('E_INVALID_DATA', {
      message: 'The checkpoint says nothing of an adapter',
      where,
      remedy: 'Give the training model that peft-compile emitted, or the adapted model, too',
    })
  );
}
