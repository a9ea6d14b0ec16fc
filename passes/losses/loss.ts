/**
 * A loss reads outputs of the model and labels and says what is minimised. It states the sum and the weight that the
 * sum is divided by, not the mean: micro-batches of unequal weight then add up to the loss of one big batch.
 */
import type { z } from 'zod';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Builder } from '../../src/ops/builder.js';
import { countOf, type DType, formatType, isFloat, type Shape } from '../../src/types.js';
import { shapeOf } from '../../src/value-type.js';
import { type Json, parseOptions } from '../options.js';

export interface LabelInput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** What padded places hold, when the loss leaves them out. */
  readonly padding?: number;
}

export interface LossContext {
  readonly b: Builder;
  /**
   * An output of the model. Without a name: the one called `logits`, or the only float output, or the first one.
   * Throws E_NO_MATCH with the names that exist.
   */
  output(name?: string): Value;
  /** Adds a graph input for labels. */
  label(input: LabelInput): Value;
}

export interface LossMetric {
  readonly name: string;
  readonly value: Value;
  readonly reduce: 'sum' | 'mean';
  /** The sum divided by the weight is a rate. */
  readonly perWeight: boolean;
}

export interface BuiltLoss {
  /** Sum over the batch, float scalar. */
  readonly total: Value;
  /** Float scalar of the same dtype: tokens, rows or elements that count. */
  readonly weight: Value;
  readonly metrics?: readonly LossMetric[];
  /**
   * The gradient of `total · scale` by the one output that was read, where a formula is cheaper than what
   * differentiation of the loss would give. Absent: the loss is differentiated like the rest of the graph.
   */
  gradient?(scale: Value): { readonly of: Value; readonly value: Value };
}

export interface LossDefinition<C> {
  readonly id: string;
  readonly summary: string;
  /** The exponential of the mean loss is a perplexity. Default false. */
  readonly perplexity?: boolean;
  readonly config: z.ZodType<C>;
  build(context: LossContext, config: C): BuiltLoss;
}

export interface ConfiguredLoss {
  readonly id: string;
  readonly perplexity: boolean;
  readonly config: Record<string, Json>;
  build(context: LossContext): BuiltLoss;
}

export interface Loss {
  readonly id: string;
  readonly summary: string;
  readonly config: z.ZodType;
  /** Throws E_USAGE when `config` does not fit. */
  configure(config: unknown): ConfiguredLoss;
}

/** Declares a loss. */
export function defineLoss<C>(definition: LossDefinition<C>): Loss {
  const { id, summary, config: schema } = definition;
  return {
    id,
    summary,
    config: schema,
    configure(raw) {
      const { config, json } = parseOptions(schema, raw, `loss ${id}`);
      return {
        id,
        perplexity: definition.perplexity ?? false,
        config: json,
        build: (context) => definition.build(context, config),
      };
    },
  };
}

/**
 * Type of a value a loss reads. Throws E_TYPE when it is not a float tensor of known rank, or has fewer than
 * `minRank` axes.
 */
export function floatTensor(
  value: Value,
  loss: string,
  minRank: number,
): { readonly dtype: DType; readonly shape: Shape } {
  const type = value.type;
  if (type?.kind === 'tensor' && type.shape !== null && isFloat(type.dtype) && type.shape.length >= minRank)
    return { dtype: type.dtype, shape: type.shape };
  return fail('E_TYPE', {
    message: `The loss '${loss}' needs a float tensor of ${minRank > 0 ? `${minRank} or more axes` : 'known rank'}, not ${formatType(type)}`,
    where: value.label,
    remedy: 'Name another output of the model',
  });
}

/** Shape of a regression target: HF models put one score per row in [..., 1] and take targets without that axis. */
export function targetShape(shape: Shape): Shape {
  return shape.length > 1 && shape.at(-1) === 1 ? shape.slice(0, -1) : shape;
}

/** Dtype a loss computes in: half precision is widened, so that sums over many rows stay exact enough. */
export function lossDtype(dtype: DType): DType {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/** `value` in `dtype`, through a Cast only where it differs. */
export function castTo(b: Builder, value: Value, dtype: DType): Value {
  return value.type?.kind === 'tensor' && value.type.dtype === dtype
    ? value
    : b.op.Cast(value, { to: dtype });
}

/** A constant vector. */
export function vector(b: Builder, values: readonly number[], dtype: DType): Value {
  return b.constant(tensorOf(dtype, [values.length], values), 'weights');
}

/** Number of elements of `value` as a scalar of `dtype`. */
export function sizeOf(b: Builder, value: Value, dtype: DType): Value {
  const shape = shapeOf(value);
  if (shape?.every((d): d is number => typeof d === 'number')) return b.scalar(countOf(shape), dtype);
  return b.op.Cast(b.op.ReduceProd(b.op.Shape(value), { keepdims: 0 }), { to: dtype });
}
