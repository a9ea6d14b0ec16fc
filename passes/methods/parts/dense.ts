/** Dense layers and tensors as torch's modules bring them. Weights are [in, out] here, [out, in] there. */
import type { Value } from '../../../src/graph.js';
import { normal } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { ParamSpec, ParamSpecs, ParamValues } from '../contract/method.js';
import { linearDefault } from './initializers.js';

/** `nn.Linear(in, out)` with torch's initial values. */
export function denseParams(inDim: number, outDim: number, key: string): ParamSpecs<'weight' | 'bias'> {
  return {
    weight: { shape: [inDim, outDim], init: linearDefault(inDim), key },
    bias: { shape: [outDim], init: linearDefault(inDim), key: `${key}.bias` },
  };
}

/** x W + b */
export function dense(op: Ops, x: Value, { weight, bias }: ParamValues<'weight' | 'bias'>): Value {
  return op.Add(op.MatMul(x, weight), bias);
}

/** `nn.Embedding(rows, dim)`, read whole. */
export function table(rows: number, dim: number, key: string): ParamSpec {
  return { shape: [rows, dim], init: normal(1), key };
}
