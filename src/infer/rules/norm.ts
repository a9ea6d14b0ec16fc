/** Normalisation, losses and quantisation. */
import type { Dim, DType } from '../../types.js';
import type { Call, Rule, Rules } from '../call.js';
import { matmulShape } from '../shapes.js';

/** Shape of per-row statistics: axes from `axis` on become 1. */
function statistics(c: Call): readonly Dim[] | null {
  const shape = c.shape(0);
  if (shape === null) return null;
  const axis = c.axis(c.int('axis', -1), shape.length);
  return shape.map((dim, i) => (i < axis ? dim : 1));
}

export const layerNormalization: Rule = (c) => {
  c.set(0, c.dtype(0), c.shape(0));
  const stash: DType = c.dtypeAttribute('stash_type') ?? 'float32';
  c.set(1, stash, statistics(c));
  c.set(2, stash, statistics(c));
};

const batchNormalization: Rule = (c) => {
  c.set(0, c.dtype(0), c.shape(0));
  for (let i = 1; i < 5; i++) c.set(i, c.dtype(i < 3 ? i + 2 : i), c.shape(i < 3 ? i + 2 : i));
};

/** Loss of scores [n, classes, d…] against labels [n, d…]. */
export const loss: Rule = (c) => {
  const reduced = c.text('reduction', 'mean') !== 'none';
  c.set(0, c.dtype(0), reduced ? [] : c.shape(1));
  c.set(1, c.dtype(0), c.shape(0));
};

export const normalization: Rules = {
  LayerNormalization: layerNormalization,
  RMSNormalization: layerNormalization,
  SimplifiedLayerNormalization: layerNormalization,
  BatchNormalization: batchNormalization,
  SoftmaxCrossEntropyLoss: loss,
  NegativeLogLikelihoodLoss: loss,
};

const quantized =
  (zeroPoint: number): Rule =>
  (c) => {
    const given = c.dtypeAttribute('output_dtype');
    c.set(0, c.dtype(zeroPoint) ?? given ?? 'uint8', c.shape(0));
  };

export const quantization: Rules = {
  QuantizeLinear: quantized(2),
  DequantizeLinear: (c) => c.set(0, c.dtypeAttribute('output_dtype') ?? c.dtype(1), c.shape(0)),
  DynamicQuantizeLinear: (c) => {
    c.set(0, 'uint8', c.shape(0));
    c.set(1, 'float32', []);
    c.set(2, 'uint8', []);
  },
  MatMulInteger: (c) => c.set(0, 'int32', matmulShape(c, c.shape(0), c.shape(1))),
  QLinearMatMul: (c) => c.set(0, c.dtype(7), matmulShape(c, c.shape(0), c.shape(3))),
};
