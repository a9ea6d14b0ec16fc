/** Sizes of a transformer of BERT-base's width, to show what a method brings there. */
import type { SiteDims } from '../../passes/sites/views.js';

const common = { path: 'encoder.layer.0.module', dtype: 'float32' } as const;

export const SAMPLE_SITES: SiteDims = {
  linear: { ...common, inDim: 768, outDim: 768, bias: true, role: 'query' },
  embedding: { ...common, vocab: 30522, dim: 768 },
  norm: { ...common, dim: 768, bias: true },
  sublayer: { ...common, role: 'feed-forward', dim: 768, postNorm: true },
  attention: { ...common, heads: 12, keyValueHeads: 12, headDim: 64, cross: false, hiddenDim: 768 },
  position: common,
  prompt: { ...common, vocab: 30522, dim: 768 },
};
