import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { inPlace, SHAPES_OF, trainedInPlace } from './parts/in-place.js';

/**
 * Bias tuning: every bias trains, offsets of norms included, and nothing else: `b' = b_trained`. Targets or roles choose
 * fewer of them (the paper's smallest variant is `role:query` and `role:up`). The bias of the keys has a gradient of
 * exactly zero where no rotary embedding stands between it and the scores, because softmax does not see a shift that all
 * keys share; rounding alone moves it then. A model without biases (Llama) has nothing to train, unless linears without one get
 * one with `missing: add`, which starts at zero: `y' = y + b`. That is a node more, so it does not fold.
 * Weight decay, where it is set, acts on biases and offsets too: it pulls them to zero, not to the base.
 */
export default defineMethod({
  id: 'bitfit',
  summary: 'Train all biases and offsets of norms',
  paper: {
    title: 'BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models',
    arxiv: '2106.10199',
  },
  config: z.strictObject({
    missing: z
      .enum(['skip', 'add'])
      .default('skip')
      .describe('Linear modules without a bias are left alone, or get one that does not fold'),
  }),
  learningRate: 3e-3,
  defaultTargets: 'all',
  sites: {
    linear: {
      refuses: ({ bias }, { missing }) =>
        bias || missing === 'add' ? undefined : 'it has no bias; missing: add gives it one',
      params: (site) =>
        site.bias
          ? trainedInPlace(SHAPES_OF.linear(site), ['bias'])
          : { bias: { shape: [site.outDim], init: zeros } },
      attach: (op, site, params) =>
        site.bias ? inPlace(params) : { y: op.Add(site.y, params.bias as Value) },
      fold: (_op, _stored, params, _config, site) =>
        site.bias
          ? inPlace(params)
          : { impossible: 'the module has no bias to fold into; leave such modules out with missing: skip' },
    },
    norm: {
      refuses: ({ bias }) => (bias ? undefined : 'it has no bias (a norm without offset)'),
      params: (site) => trainedInPlace(SHAPES_OF.norm(site), ['bias']),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
  },
});
