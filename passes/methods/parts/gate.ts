/**
 * The gate of UniPELT (arXiv 2110.07577): g(h) = mean over time of σ(h w + c), one number per example, from the values
 * that the gated part reads. Padding counts, as in the published code.
 */
import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import { normal, zeros } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { ParamSpecs, ParamValues } from '../contract/method.js';

export type GateRole = 'gate' | 'gateBias';

/**
 * The gate's parameters, under keys that begin with `key`. Without `gating` there are none; formulas that do not ask for
 * them see the same type.
 */
export function gateParams(dim: number, gating: boolean, key: string): ParamSpecs<GateRole> {
  const none = {} as ParamSpecs<GateRole>;
  if (!gating) return none;
  return {
    gate: { shape: [dim, 1], init: normal(0.02), key },
    gateBias: { shape: [1], init: zeros, key: `${key}.bias` },
  };
}

/** Why a module that reads values of so many axes cannot be gated; undefined where it can, or the axes are not known. */
export function withoutTokens(rank: number | undefined): string | undefined {
  return rank !== undefined && rank < 3
    ? 'its gate would be averaged over the tokens of an example, which its input has no axis for; leave gating off to adapt it, or export with dynamo=True, which keeps the axes'
    : undefined;
}

/** g(h) as [batch, 1, 1], of hidden states [batch, time, dim]. Throws E_UNSUPPORTED where examples have no axis of their own. */
export function gateOf(op: Ops, h: Value, { gate, gateBias }: ParamValues<GateRole>, path: string): Value {
  const rank = h.type?.kind === 'tensor' ? h.type.shape?.length : undefined;
  if (withoutTokens(rank) !== undefined)
    fail('E_UNSUPPORTED', {
      message: 'A gate is averaged over the tokens of an example, which this module no longer tells apart',
      where: path,
      remedy: 'Leave gating off here, choose other targets, or export with dynamo=True, which keeps the axes',
    });
  return op.ReduceMean(op.Sigmoid(op.Add(op.MatMul(h, gate), gateBias)), [-2], { keepdims: 1 });
}
