import { z } from 'zod';
import { inPlace, SHAPES_OF, trainedInPlace } from './in-place.js';
import { defineMethod } from './method.js';

/**
 * Bias tuning: every bias trains, offsets of norms included, and nothing else: `b' = b_trained`. Targets or roles choose
 * fewer of them (the paper's smallest variant is `role:query` and `role:up`). The bias of the keys has a gradient of
 * exactly zero where no rotary embedding stands between it and the scores, because softmax does not see a shift that all
 * keys share; rounding alone moves it then. A model without biases (Llama) has nothing to train: choose another method.
 */
export default defineMethod({
  id: 'bitfit',
  summary: 'Train all biases and offsets of norms',
  paper: {
    title: 'BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models',
    arxiv: '2106.10199',
  },
  config: z.strictObject({}),
  defaultTargets: 'all',
  sites: {
    linear: {
      refuses: ({ bias }) => (bias ? undefined : 'it has no bias'),
      params: (site) => trainedInPlace(SHAPES_OF.linear(site), ['bias']),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
    norm: {
      refuses: ({ bias }) => (bias ? undefined : 'it has no bias (a norm without offset)'),
      params: (site) => trainedInPlace(SHAPES_OF.norm(site), ['bias']),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
  },
});
