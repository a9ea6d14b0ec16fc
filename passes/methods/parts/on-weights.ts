/** Rules of methods that change the stored tensors of a linear: what trains and what folds is one formula. */
import type { Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { LinearDims } from '../../sites/views.js';
import type { ParamSpecs, ParamValues, SiteRules } from '../contract/method.js';

export interface Weights {
  /** [in, out] */
  readonly w: Value;
  readonly b?: Value | undefined;
}

/** New values of the tensors that change. */
export type WeightFormula<Config, P extends string> = (
  op: Ops,
  weights: Weights,
  params: ParamValues<P>,
  config: Config,
  site: LinearDims,
) => { readonly w?: Value; readonly b?: Value };

export function onWeights<Config, P extends string, S extends string = never>(
  params: (site: LinearDims, config: Config) => ParamSpecs<P>,
  formula: WeightFormula<Config, P | S>,
): SiteRules<'linear', Config, P, S> {
  return {
    params,
    attach: (op, site, values, config) => formula(op, { w: site.w, b: site.b }, values, config, site),
    fold: (op, stored, values, config, site) => formula(op, stored, values, config, site),
  };
}

/** Why methods of files are chosen by nobody. */
export function ofFiles(type: string): string {
  return `it is what a PEFT folder of type ${type} is read as`;
}
