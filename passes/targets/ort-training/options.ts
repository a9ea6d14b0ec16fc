/** What the ort-training target can be asked for. */
import type { z } from 'zod';
import type { scheduleSchema } from '../manifest.js';
import type { TrainingOptions } from '../training.js';

/** How Adam's bias correction and weight decay are ordered: as PyTorch does, or as older versions of transformers did. */
export type AdamMode = 'torch' | 'huggingface';

export interface OrtTrainingOptions extends TrainingOptions {
  /** Course of the learning rate, computed in the optimizer model. Default: constant 1e-3. */
  readonly schedule?: z.input<typeof scheduleSchema>;
  /**
   * `graph` (default): the optimizer model computes the learning rate from the step alone, so that every binding trains
   * alike, those included that cannot set a rate. `runtime`: the rate that the caller sets, times the schedule, whose
   * peak is then 1.
   */
  readonly rate?: 'graph' | 'runtime';
  /** Default `torch`, which is what the step target does. */
  readonly adamMode?: AdamMode;
  /** Micro-batches that the caller adds up before an optimizer step; every gradient is divided by it. Default 1. */
  readonly accumulation?: number;
  /**
   * Where frozen weights go: `graph` (default), initializers of the models; `checkpoint`, frozen parameters of the
   * checkpoint, which then holds the only copy of them.
   */
  readonly frozen?: 'graph' | 'checkpoint';
  /** As for the step target, but a number: nothing here can adapt it. Default 256 for float16 models and 1 for others. */
  readonly lossScale?: number;
  /**
   * What a training step gives back: the mean loss (default), or with it the weight it was divided by and the metrics
   * of the loss.
   */
  readonly trainOutputs?: 'loss' | 'metrics';
  /** Seed of the dropout masks of the first forward pass; the next pass has the next number. Default 0. */
  readonly seed?: number;
}
