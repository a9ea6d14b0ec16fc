/**
 * An optimizer is data plus one formula over one tensor. The step target decides whether that tensor is one parameter
 * or many laid end to end: a formula is elementwise and never learns which.
 */
import type { z } from 'zod';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type Json, parseOptions } from '../options.js';

/** A tensor of the parameter's shape that is carried from step to step. */
export interface StateSlot {
  readonly name: string;
  /** Value of all elements before the first step. */
  readonly init: number;
}

/** One tensor to update; all values have one float dtype. */
export interface TensorUpdate {
  readonly param: Value;
  /** Clipped and averaged, same shape as `param`. */
  readonly gradient: Value;
  readonly state: Readonly<Record<string, Value>>;
  /** Learning rate of this tensor, scalar. */
  readonly lr: Value;
  /** False where weight decay leaves the tensor alone. */
  readonly weightDecay: boolean;
}

export interface UpdatedTensor {
  readonly param: Value;
  /** Same keys as the slots. */
  readonly state: Readonly<Record<string, Value>>;
}

export interface OptimizerDefinition<C> {
  readonly id: string;
  readonly summary: string;
  readonly config: z.ZodType<C>;
  slots(config: C): readonly StateSlot[];
  /**
   * Builds what depends on the step alone (once per graph) and returns the formula for one tensor.
   * `step` is a float scalar of the parameters' dtype that counts from 1.
   */
  formula(op: Ops, step: Value, config: C): (update: TensorUpdate) => UpdatedTensor;
}

/** An optimizer with its configuration filled in. */
export interface ConfiguredOptimizer {
  readonly id: string;
  readonly config: Record<string, Json>;
  readonly slots: readonly StateSlot[];
  formula(op: Ops, step: Value): (update: TensorUpdate) => UpdatedTensor;
}

export interface Optimizer {
  readonly id: string;
  readonly summary: string;
  readonly config: z.ZodType;
  /** Throws E_USAGE when `config` does not fit. */
  configure(config: unknown): ConfiguredOptimizer;
}

/** Declares an optimizer. */
export function defineOptimizer<C>(definition: OptimizerDefinition<C>): Optimizer {
  const { id, summary, config: schema } = definition;
  return {
    id,
    summary,
    config: schema,
    configure(raw) {
      const { config, json } = parseOptions(schema, raw, `optimizer ${id}`);
      return {
        id,
        config: json,
        slots: definition.slots(config),
        formula: (op, step) => definition.formula(op, step, config),
      };
    },
  };
}
