/** What a gradient rule is: the math of one operator's vector-Jacobian product, and nothing else. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';

/** `scale · value`, with the multiplication put off: every vector-Jacobian product is linear, so scalars commute. */
export interface Scaled {
  readonly value: Value;
  readonly scale: number;
}

/**
 * The cotangent of one input, computed only when it is called; null (or a missing entry) where no gradient flows.
 * With `broadcasts`, its shape is that of the output and the driver sums what broadcasting repeated.
 */
export type Contribution = (() => Value | Scaled) | null;

/** Contributions by input position. */
export type GradientRule = (c: GradientContext) => readonly Contribution[];

export interface GradientSpec {
  readonly op: string;
  /** '' (ai.onnx) by default. */
  readonly domain?: string;
  /** First and last opset version of the domain that the rule holds for; all by default. */
  readonly opsets?: readonly [number, number];
  /** The op broadcasts its inputs, so contributions have the output's shape. */
  readonly broadcasts?: boolean;
  /**
   * Outputs of integers that stand for reals: gradients flow through these, and through none of its other outputs. Where
   * an op without this reads such integers, its integer outputs carry on with them.
   */
  readonly codes?: readonly number[];
  /** The rule is an estimate and no derivative: it passes rounding straight through. */
  readonly estimate?: boolean;
}

export interface Gradient extends GradientSpec {
  readonly rule: GradientRule;
}

/** Declares the gradient of an operator. */
export function defineGradient(spec: GradientSpec, rule: GradientRule): Gradient {
  return { ...spec, rule };
}
