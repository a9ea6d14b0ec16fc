import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { inPlace, SHAPES_OF, trainedInPlace } from './parts/in-place.js';

/**
 * LayerNorm tuning: gain and offset of the norms train, RMSNorms have the gain alone: `y = normalize(x)·g_trained +
 * o_trained`. Where a module multiplies by one plus its weight (Gemma), the weight is what trains, as in PEFT.
 * Weight decay, where it is set, acts on gains and offsets too: it pulls them to zero, not to the base.
 */
export default defineMethod({
  id: 'ln-tuning',
  summary: 'Train gains and offsets of normalizations',
  paper: {
    title: 'Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning',
    arxiv: '2312.11420',
  },
  config: z.strictObject({}),
  learningRate: 3e-3,
  defaultTargets: 'all',
  sites: {
    norm: {
      params: (site) => trainedInPlace(SHAPES_OF.norm(site), undefined, 'ln_tuning_layers.'),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
  },
  peft: {
    types: ['LN_TUNING'],
    tensors: {
      norm: { weight: { key: 'ln_tuning_layers.weight' }, bias: { key: 'ln_tuning_layers.bias' } },
    },
    settings: () => ({}),
    config: () => ({}),
  },
});
