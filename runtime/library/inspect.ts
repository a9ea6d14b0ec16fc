/** Inspection that knows the gradient rules. */
import { gradientTest } from '../../passes/grad/registry.js';
import type { Gradient } from '../../passes/grad/rule.js';
import { type InspectReport, inspect as inspectModel } from '../../passes/inspect/inspect.js';
import type { Model } from '../../src/model.js';

export interface InspectOptions {
  /** Module paths by node name, weight name or output name, for models whose names are lost. */
  readonly paths?: ReadonlyMap<string, string>;
  /** Gradient rules of one's own: their operators count as trainable. */
  readonly gradientRules?: readonly Gradient[];
}

/**
 * What a model holds, where methods can attach, which operators lie on the way of gradients and which of them lack a
 * rule. Plain data; the model is left as it is, but for the types of values that had none.
 */
export function inspect(model: Model, options: InspectOptions = {}): InspectReport {
  const { gradientRules, ...rest } = options;
  return inspectModel(model, { ...rest, hasGradient: gradientTest(gradientRules) });
}
