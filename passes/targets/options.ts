/** What the step target can be asked for. */
import type { z } from 'zod';
import type { Gradient } from '../grad/rule.js';
import type { Loss } from '../losses/loss.js';
import type { Method } from '../methods/contract/method.js';
import type { InputSettings } from '../normalize/fixed-inputs.js';
import type { Optimizer } from '../optimizers/optimizer.js';
import type { Pass } from '../pass.js';
import type { PrecisionOptions } from '../precision/options.js';
import type { scheduleSchema } from './manifest.js';

/** Settings of one parameter group. */
export interface GroupOptions {
  /** Factor on the learning rate; default 1. */
  readonly lrScale?: number;
  /** Overrides what the method says per parameter. */
  readonly weightDecay?: boolean;
}

export interface StepOptions {
  /** A loss that ships, by id, or one of your own. */
  readonly loss: string | Loss;
  readonly lossConfig?: unknown;
  /** Methods of one's own that the adapter's record names, where they have a penalty or a procedure. */
  readonly methods?: readonly Method[];
  /** Default `adamw`. */
  readonly optimizer?: string | Optimizer;
  readonly optimizerConfig?: unknown;
  /** Recorded in the manifest; the host computes the learning rate. Default: constant 1e-3. */
  readonly schedule?: z.input<typeof scheduleSchema>;
  /** Largest global 2-norm of the gradient; absent or null for no clipping. */
  readonly clip?: number | null;
  /** Micro-batches per optimizer step; above 1 the target is a `grad` and an `update` graph instead of `step`. Default 1. */
  readonly accumulation?: number;
  /** By group name, as the method declares groups. */
  readonly groups?: Readonly<Record<string, GroupOptions>>;
  /** Overrides the dropout probability that the adapter was inserted with; 0 switches it off. */
  readonly dropout?: number;
  /**
   * Factor on the loss while gradients flow through the model, divided out in float32 afterwards, so that small
   * gradients do not underflow in half precision. `dynamic`: an input that the driver adapts to the run, as the manifest
   * says (`lossScaling`). Default `dynamic` where activations are float16 and 1 elsewhere.
   */
  readonly lossScale?: number | 'dynamic';
  /**
   * Mixed precision: frozen weights, products and what lies between them in float16 or bfloat16; loss, softmax,
   * normalisation, trainables and optimizer in float32 (`passes/precision`). Absent: the dtypes of the model.
   */
  readonly precision?: PrecisionOptions;
  /**
   * Compute activations a second time in the backward pass instead of keeping them: true for the groups of blocks that
   * need least memory, or the number of groups at most. Results are the same. Default false.
   */
  readonly recompute?: boolean | number;
  /** Gradient rules of one's own, by operator of the normalised graph; they win over those that ship. */
  readonly gradientRules?: readonly Gradient[];
  /** Passes of one's own that run on the training copy before its normalisation, e.g. to expand an operator. */
  readonly lowerings?: readonly Pass[];
  /**
   * What becomes of inputs of the model, by name. Left open, a boolean that switches between branches takes the one
   * without a past, and keys and values of earlier steps are empty (`passes/normalize/fixed-inputs.ts`).
   */
  readonly inputs?: InputSettings;
  /** Give the gradient of every parameter as an output of the `step` graph. Default false. */
  readonly gradients?: boolean;
  /** Outputs of the model in the eval graph: what the loss reads, or all. Default `loss`. */
  readonly evalOutputs?: 'loss' | 'all';
  /** Most elements that parameters updated together may have; larger ones are updated on their own. Default 65,536. */
  readonly flatLimit?: number;
  /** File names of graph models. Default `step.onnx`, `grad.onnx`, `update.onnx`, `eval.onnx`. */
  readonly fileName?: (graph: 'step' | 'grad' | 'update' | 'eval') => string;
}
