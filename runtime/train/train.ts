/** The trainer: data in, graphs driven, adapter out; resumable at every step. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { proceduresOf } from '../../passes/procedures.js';
import { fail, PeftCompileError } from '../../src/errors.js';
import { countOf } from '../../src/types.js';
import { loadArtifacts, type TrainArtifacts } from '../artifacts.js';
import type { Collator } from '../data/batch.js';
import { type Dataset, splitDataset } from '../data/dataset.js';
import { firstNonFinite } from '../host-tensor.js';
import { batchesFor, dataFor } from './batches.js';
import { type Fingerprint, latestCheckpoint } from './checkpoint.js';
import { Checkpoints } from './checkpoints.js';
import { evaluateDataset } from './evaluate.js';
import type { EvalResult, StopReason, TrainEvent } from './events.js';
import { fingerprintOf } from './fingerprint.js';
import { RunLog } from './log.js';
import { listed, naming } from './naming.js';
import { checkOptions, scheduleOf, type TrainOptions, type TrainResult, totalSteps } from './options.js';
import { persist } from './persist.js';
import { Plan } from './plan.js';
import { Procedures } from './procedures.js';
import { checkSaving, writeTrained } from './save.js';
import { learningRate } from './schedule.js';
import { Stepper, type StepResult } from './stepper.js';

export const ADAPTER_FILE = 'adapter.safetensors';
export const LOG_FILE = 'log.jsonl';
export const CHECKPOINT_FOLDER = 'checkpoints';

/**
 * Trains the parameters of a step target.
 * @throws E_EXISTS (results in `out`), E_INVALID_DATA (data, checkpoint), E_NON_FINITE (diverged), E_USAGE, E_IO, E_RUNTIME.
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const resuming = options.resume !== undefined && options.resume !== false;
  const adapterPath = join(options.out, ADAPTER_FILE);
  const checkpointFolder = join(options.out, CHECKPOINT_FOLDER);
  for (const path of [
    adapterPath,
    join(options.out, LOG_FILE),
    (await latestCheckpoint(checkpointFolder)) ?? adapterPath,
  ])
    if (existsSync(path) && options.force !== true && !resuming)
      fail('E_EXISTS', {
        message: 'The folder holds the results of an earlier run',
        where: path,
        remedy: 'Use --force to replace them, --resume to continue, or another folder.',
      });
  const artifacts =
    typeof options.artifacts === 'string' ? await loadArtifacts(options.artifacts) : options.artifacts;
  const run = await prepare(options, artifacts);
  const stepper = new Stepper(artifacts, options.session);
  try {
    const procedures = new Procedures(artifacts, options.methods ?? [], run.steps);
    stepper.watch(procedures.watched);
    const checkpoints = new Checkpoints(checkpointFolder, stepper, procedures, run.fingerprint, {
      keep: options.keepCheckpoints ?? 2,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    const start = resuming
      ? await checkpoints.restore(typeof options.resume === 'string' ? options.resume : undefined)
      : 0;
    if (!resuming) {
      if (options.force === true) await checkpoints.clear();
      await stepper.load(options.initial ?? artifacts.initial);
    }
    const log = await RunLog.open(join(options.out, LOG_FILE), start);
    try {
      return await loop({
        options,
        artifacts,
        run,
        stepper,
        procedures,
        checkpoints,
        log,
        start,
        adapterPath,
      });
    } catch (error) {
      throw afterFailure(error, checkpoints.last);
    } finally {
      log.close();
    }
  } finally {
    await stepper.close();
  }
}

/** A failure of the runtime (memory, a lost device) costs the steps since the last checkpoint: the error names it. */
function afterFailure(error: unknown, checkpoint: string | undefined): unknown {
  if (!(error instanceof PeftCompileError && error.code === 'E_RUNTIME') || checkpoint === undefined)
    return error;
  return new PeftCompileError(error.code, {
    message: error.message.replace(/\.$/, ''),
    remedy: `The checkpoint ${checkpoint} is whole; --resume continues from it.`,
    cause: error,
  });
}

/** Everything about a run that is settled before its first step. */
interface Run {
  readonly data: Dataset;
  readonly evalData: Dataset | undefined;
  readonly collator: Collator;
  readonly batchSize: number;
  readonly evalBatchSize: number;
  readonly plan: Plan;
  readonly steps: number;
  readonly seed: number;
  /** Elements of the adapter file that the run will write. */
  readonly stored: number;
  readonly fingerprint: Fingerprint;
  readonly schedule: ReturnType<typeof scheduleOf>;
}

async function prepare(options: TrainOptions, artifacts: TrainArtifacts): Promise<Run> {
  const { manifest } = artifacts;
  checkOptions(options);
  // An adapter that could not be saved is an error now, not at the end of the run.
  const stored = checkSaving(artifacts);
  const seed = options.seed ?? 0;
  const { open, padId } = dataFor(manifest, options.load);
  const all = await open(options.data);
  const { data, evalData } = await split(all, options, seed, (path) => open(path, all.classes));
  const { collator, batchSize } = batchesFor(manifest, evalData === undefined ? [data] : [data, evalData], {
    collate: options.collate,
    padId,
    batchSize: options.batchSize,
    ep: options.session?.ep,
  });
  const accumulation = manifest.accumulation?.steps ?? 1;
  const dropLast = options.dropLast ?? (collator.batchSize !== undefined && !collator.canFill);
  const shuffle = options.shuffle ?? true;
  const plan = new Plan({ examples: data.length, batchSize, accumulation, dropLast, shuffle, seed });
  if (plan.stepsPerEpoch === 0)
    fail('E_INVALID_DATA', {
      message: `${data.length} examples do not fill one batch of ${batchSize}`,
      where: data.source,
      remedy: 'Use a smaller batch size or more data.',
    });
  const steps = totalSteps(options, manifest, plan.stepsPerEpoch);
  const schedule = scheduleOf(options, manifest, steps);
  // A misspelt schedule is an error now, not at the end of the warm-up.
  learningRate(schedule, steps);
  return {
    data,
    evalData,
    collator,
    batchSize,
    evalBatchSize: collator.batchSize ?? options.evalBatchSize ?? batchSize,
    plan,
    steps,
    seed,
    stored,
    schedule,
    fingerprint: {
      ...fingerprintOf({ manifest, data, batchSize, dropLast, shuffle, seed, schedule }),
      // Procedures plan over the whole run.
      ...(proceduresOf(artifacts.record, options.methods).length > 0
        ? { 'number of steps': String(steps) }
        : {}),
    },
  };
}

async function split(
  all: Dataset,
  options: TrainOptions,
  seed: number,
  open: (data: Dataset | string) => Promise<Dataset>,
): Promise<{ data: Dataset; evalData: Dataset | undefined }> {
  if (options.evalData !== undefined) return { data: all, evalData: await open(options.evalData) };
  const share = options.validation ?? 0;
  if (share === 0) return { data: all, evalData: undefined };
  if (!(share > 0 && share < 1) || all.length < 2)
    fail('E_USAGE', {
      message: `A share of ${share} of ${all.length} examples cannot be held out`,
      remedy: 'Use a share between 0 and 1 and at least two examples.',
    });
  const { train: data, held: evalData } = splitDataset(all, share, seed);
  return { data, evalData };
}

interface LoopContext {
  readonly options: TrainOptions;
  readonly artifacts: TrainArtifacts;
  readonly run: Run;
  readonly stepper: Stepper;
  readonly procedures: Procedures;
  readonly checkpoints: Checkpoints;
  readonly log: RunLog;
  /** Steps done before. */
  readonly start: number;
  readonly adapterPath: string;
}

async function loop(context: LoopContext): Promise<TrainResult> {
  const { options, artifacts, run, stepper, procedures, checkpoints, log, start, adapterPath } = context;
  const { manifest } = stepper;
  const emit = (event: TrainEvent) => options.onEvent?.(event);
  const began = performance.now();
  const trainable = manifest.params.reduce((sum, { shape }) => sum + countOf(shape), 0);
  emit({
    type: 'start',
    totalSteps: run.steps,
    stepsPerEpoch: run.plan.stepsPerEpoch,
    examples: run.data.length,
    trainable,
    resumedFrom: start,
  });
  await stepper.open();
  const losses: number[] = [];
  const evals: (EvalResult & { step: number })[] = [];
  let reason: StopReason = 'finished';
  let step = start;
  const pace = { seconds: 0, tokens: 0 };

  const evaluateNow = async () => {
    if (run.evalData === undefined) return;
    const result = await evaluateDataset(stepper, run.evalData, run.collator, {
      batchSize: run.evalBatchSize,
      signal: options.signal,
    });
    if (result === undefined) return;
    const best = checkpoints.note(result.loss);
    evals.push({ step, ...result });
    log.write({ step, eval: result });
    emit({ type: 'eval', step, best, ...result });
    if (best && step > 0) emit({ type: 'checkpoint', step, path: await checkpoints.saveBest(step), best });
  };
  const save = async () => {
    emit({ type: 'checkpoint', step, path: await checkpoints.save(step), best: false });
  };

  const outOfPatience = () =>
    options.patience !== undefined && checkpoints.stale >= options.patience && step < run.steps;

  if ((options.evalFirst === true && start === 0) || checkpoints.evaluationDue) await evaluateNow();
  if (start > 0 && outOfPatience()) reason = 'early-stop';
  while (step < run.steps && reason === 'finished') {
    if (options.signal?.aborted === true) {
      reason = 'interrupted';
      break;
    }
    const planned = run.plan.at(step + 1);
    const batches = planned.batches.map((indices) =>
      run.collator.batch(indices.map((index) => run.data.example(index))),
    );
    const lr = learningRate(run.schedule, step + 1);
    const before = performance.now();
    const examplesOf = batches.flatMap((batch) => batch.where);
    const result = await naming(examplesOf, () =>
      stepper.step(
        batches.map((batch) => batch.feeds),
        { lr, step: step + 1, seeds: batches.map((_, i) => run.seed + planned.forwardPasses + i) },
      ),
    );
    step++;
    await checkFinite(result, stepper, step, examplesOf);
    if (!result.skipped) await procedures.afterStep(step, stepper);
    const seconds = (performance.now() - before) / 1000;
    const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
    const examples = batches.reduce((sum, batch) => sum + batch.examples, 0);
    pace.seconds += seconds;
    pace.tokens += tokens;
    losses.push(result.loss);
    const common = {
      step,
      epoch: planned.epoch + 1,
      loss: result.loss,
      gradNorm: result.gradNorm,
      lr,
      metrics: result.metrics,
      examples,
      tokens,
      ...(result.skipped ? { skipped: true } : {}),
    };
    log.write(common);
    emit({
      type: 'step',
      ...common,
      totalSteps: run.steps,
      seconds,
      tokensPerSecond: pace.tokens / pace.seconds,
      eta: (pace.seconds / (step - start)) * (run.steps - step),
    });
    if (due(step, options.evalEvery) && step < run.steps) {
      checkpoints.evaluationDue = run.evalData !== undefined;
      await evaluateNow();
      if (outOfPatience()) {
        reason = 'early-stop';
        break;
      }
    }
    if (due(step, options.checkpointEvery)) await save();
  }
  if (reason === 'interrupted') {
    if (step > 0) await save();
  } else if (reason === 'finished') await evaluateNow();

  const best =
    options.restoreBest === true && reason !== 'interrupted' ? await checkpoints.bestParams() : undefined;
  const params = best ?? (await stepper.params());
  if (reason !== 'interrupted') {
    // What an earlier run left was dealt with before the first step, hence `force`.
    await persist(options.signal, () => writeTrained(adapterPath, artifacts, params, { force: true }));
  }
  const seconds = (performance.now() - began) / 1000;
  emit({ type: 'end', step, reason, seconds });
  return {
    reason,
    steps: step,
    losses,
    evals,
    adapter: reason === 'interrupted' ? undefined : adapterPath,
    checkpoint: checkpoints.last,
    log: log.path,
    trainable,
    stored: run.stored,
    seconds,
    params,
    ...(run.data.classes === undefined ? {} : { classes: run.data.classes }),
  };
}

function due(step: number, every: number | undefined): boolean {
  return every !== undefined && every > 0 && step % every === 0;
}

/** Stops a diverged run: names the loss, or else the first parameter that the step left non-finite. */
async function checkFinite(
  result: StepResult,
  stepper: Stepper,
  step: number,
  where: readonly string[],
): Promise<void> {
  const { loss, gradNorm, skipped } = result;
  // A gradient that overflows at every scale is no matter of the scale.
  if (Number.isFinite(loss) && (skipped ? stepper.scaler.scale >= 1 : Number.isFinite(gradNorm))) return;
  let culprit = `the loss is ${result.loss}`;
  if (Number.isFinite(result.loss)) {
    culprit = `the gradient norm is ${result.gradNorm}`;
    for (const [key, tensor] of await stepper.params()) {
      const index = firstNonFinite(tensor);
      if (index >= 0) {
        culprit = `the gradient of '${key}' is not finite (first at element ${index})`;
        break;
      }
    }
  }
  fail('E_NON_FINITE', {
    message: `Training diverged in step ${step}: ${culprit}`,
    where: listed(where),
    remedy:
      'Lower the learning rate, add warm-up or clipping, or check these examples; the checkpoints before this step are intact.',
  });
}
