/** What a model, and what adapters make of it, is worth on data. */
import { basename } from 'node:path';
import { hasAdapterRecord } from '../../passes/adapter-record.js';
import { type EvaluationTarget, emitEvaluation } from '../../passes/targets/evaluation.js';
import type { StepOptions } from '../../passes/targets/options.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import type { AdapterFile } from '../adapter.js';
import type { CollateOptions } from '../data/batch.js';
import type { Dataset } from '../data/dataset.js';
import type { SessionOptions } from '../session.js';
import { batchesFor, type DataLoadOptions, dataFor } from '../train/batches.js';
import { EvalGraphDriver } from '../train/eval-driver.js';
import { evaluateDataset } from '../train/evaluate.js';
import type { EvalResult } from '../train/events.js';
import { type AttachTrainedOptions, attach } from './attach.js';

export interface EvaluateOptions
  extends Pick<StepOptions, 'loss' | 'lossConfig' | 'inputs'>,
    Omit<AttachTrainedOptions, 'run'> {
  /** A base, a model with an adapter inside, or what `fold` wrote. */
  readonly model: string | Model;
  /** Adapters to compare, each beside the model: files of `train`, folders of PEFT, `.onnx_adapter` files. */
  readonly adapters?: readonly (string | AdapterFile)[];
  /** Measure the model without adapter too, where adapters are given. Default true. */
  readonly base?: boolean;
  /** Data, or the path of a data file. */
  readonly data: Dataset | string;
  /** How a data file is read; texts need a tokenizer. `classes`, where labels are text, must be those of the training. */
  readonly load?: DataLoadOptions;
  readonly collate?: CollateOptions;
  /** Examples per batch. Default: what the model fixes, or 8. */
  readonly batchSize?: number;
  readonly session?: SessionOptions;
  readonly onEvent?: EvaluateListener;
  /** Ends the evaluation after the batch under way; models that are done are reported. */
  readonly signal?: AbortSignal;
}

export interface EvaluatedModel extends EvalResult {
  /** `base`, the name of the adapter, or that of the model where no adapter is given. */
  readonly name: string;
  /** Path of the adapter; null for the model itself and for adapters in memory. */
  readonly adapter: string | null;
  /** Unpadded tokens; examples where the model reads no tokens. */
  readonly tokens: number;
  /** Time of the runs, loading left out. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

export interface EvaluateResult {
  readonly reason: 'finished' | 'interrupted';
  readonly loss: string;
  /** Examples of the data; a row has fewer where the last batch could not be filled. */
  readonly examples: number;
  /** Names of the classes by label, where labels were given as text. */
  readonly classes?: readonly string[];
  /** The base first, then adapters in the order given. */
  readonly models: readonly EvaluatedModel[];
}

export type EvaluateEvent =
  | { readonly type: 'start'; readonly name: string; readonly examples: number }
  | {
      readonly type: 'batch';
      readonly name: string;
      /** Examples done, and all. */
      readonly done: number;
      readonly examples: number;
      readonly tokensPerSecond: number;
    }
  | ({ readonly type: 'end' } & EvaluatedModel);

export type EvaluateListener = (event: EvaluateEvent) => void;

interface Candidate {
  readonly name: string;
  readonly adapter: string | null;
  readonly target: EvaluationTarget;
}

/**
 * Loss, perplexity where the loss has one, and metrics over a data set, without dropout: of the model, and with adapters of
 * it and of the model with each of them. The model is not changed.
 * @throws E_NO_MATCH (no such output, no such module), E_INVALID_DATA (data, or an adapter that does not fit), E_UNSUPPORTED
 * (adapters for a model that holds one), E_USAGE, E_IO, E_RUNTIME. Adapters are checked before the first of them runs.
 */
export async function evaluate(options: EvaluateOptions): Promise<EvaluateResult> {
  const { batchSize, collate, session, signal } = options;
  if (batchSize !== undefined && !(Number.isSafeInteger(batchSize) && batchSize >= 1))
    fail('E_USAGE', { message: `batchSize is ${batchSize}`, remedy: 'Give a whole number from 1.' });
  const candidates = await candidatesOf(options);
  const [first] = candidates;
  if (first === undefined)
    return fail('E_USAGE', {
      message: 'There is nothing to evaluate: no adapter, and not the base',
      remedy: 'Give adapters, or leave the base in.',
    });
  const { open, padId } = dataFor(first.target.manifest, options.load);
  const data = await open(options.data);
  const models: EvaluatedModel[] = [];
  for (const { name, adapter, target } of candidates) {
    const { manifest } = target;
    const batches = batchesFor(manifest, [data], { collate, padId, batchSize, ep: session?.ep });
    options.onEvent?.({ type: 'start', name, examples: data.length });
    const driver = new EvalGraphDriver({ manifest, graphs: { eval: target.eval } }, session);
    try {
      let [tokens, done] = [0, 0];
      const result = await evaluateDataset(driver, data, batches.collator, {
        batchSize: batches.batchSize,
        signal,
        onBatch: (batch) => {
          tokens += batch.tokens;
          done += batch.examples;
          const tokensPerSecond = tokens / driver.seconds;
          options.onEvent?.({ type: 'batch', name, done, examples: data.length, tokensPerSecond });
        },
      });
      if (result === undefined) break;
      const { seconds } = driver;
      const row = { name, adapter, ...result, tokens, seconds, tokensPerSecond: tokens / seconds };
      models.push(row);
      options.onEvent?.({ type: 'end', ...row });
    } finally {
      await driver.close();
    }
  }
  return {
    reason: models.length < candidates.length ? 'interrupted' : 'finished',
    loss: first.target.manifest.loss.id,
    examples: data.length,
    ...(data.classes === undefined ? {} : { classes: data.classes }),
    models,
  };
}

/** The graphs to run; what does not fit is an error now. */
async function candidatesOf(options: EvaluateOptions): Promise<Candidate[]> {
  const { model: given, adapters = [], loss, lossConfig, inputs, base = true } = options;
  const { anyBase, peft, methods, paths } = options;
  const settings = {
    ...(anyBase === undefined ? {} : { anyBase }),
    ...(peft === undefined ? {} : { peft }),
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  };
  const emitted = { loss, lossConfig, ...(inputs === undefined ? {} : { inputs }) };
  const model = typeof given === 'string' ? readModel(given) : given;
  const own = (name: string): Candidate => ({ name, adapter: null, target: emitEvaluation(model, emitted) });
  if (adapters.length === 0)
    return [own(model.path === undefined ? 'model in memory' : basename(model.path))];
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      ...(model.path === undefined ? {} : { where: model.path }),
      remedy: 'Give its base, or evaluate it without --adapter',
    });
  const candidates = base ? [own('base')] : [];
  for (const [index, adapter] of adapters.entries()) {
    const { model: adapted } = cloneModel(model);
    await attach(adapted, adapter, settings);
    const path = typeof adapter === 'string' ? adapter : null;
    candidates.push({
      name: path ?? `adapter ${index + 1}`,
      adapter: path,
      target: emitEvaluation(adapted, emitted),
    });
  }
  return candidates;
}
