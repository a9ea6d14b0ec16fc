/** What a training run tells whoever watches it. The CLI renders these; nothing here prints. */

export interface EvalResult {
  readonly loss: number;
  /** exp(loss), for losses that are a cross-entropy. */
  readonly perplexity?: number;
  /** Metrics of the loss, e.g. `correct` as a rate: the accuracy. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Tokens, rows or elements that the loss averages over. */
  readonly weight: number;
  readonly examples: number;
}

/** Why a run ended. */
export type StopReason = 'finished' | 'interrupted' | 'early-stop';

export type TrainEvent =
  | {
      readonly type: 'start';
      readonly totalSteps: number;
      readonly stepsPerEpoch: number;
      readonly examples: number;
      readonly trainable: number;
      /** Step the run continues from; 0 for a new one. */
      readonly resumedFrom: number;
    }
  | {
      readonly type: 'step';
      readonly step: number;
      /** From 1. */
      readonly epoch: number;
      readonly totalSteps: number;
      readonly loss: number;
      readonly gradNorm: number;
      /** The gradient overflowed in half precision: the step changed nothing but the loss scale. */
      readonly skipped?: boolean;
      readonly lr: number;
      readonly metrics: Readonly<Record<string, number>>;
      readonly examples: number;
      readonly tokens: number;
      /** Wall-clock seconds of this step. */
      readonly seconds: number;
      /** Average since the run (or its continuation) began, evaluation and checkpoints left out. */
      readonly tokensPerSecond: number;
      /** Seconds until the last step at that pace. */
      readonly eta: number;
    }
  | ({ readonly type: 'eval'; readonly step: number; readonly best: boolean } & EvalResult)
  | { readonly type: 'checkpoint'; readonly step: number; readonly path: string; readonly best: boolean }
  | { readonly type: 'end'; readonly step: number; readonly reason: StopReason; readonly seconds: number };

export type TrainListener = (event: TrainEvent) => void;
