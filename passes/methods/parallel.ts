import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import {
  bottleneck,
  bottleneckParams,
  bottleneckSettings,
  NO_BLOCKS,
  NON_LINEAR,
} from './parts/bottleneck.js';

/**
 * Parallel adapters, scaled or not. A bottleneck beside the feed-forward block: `z' = z + s·(f(x Wd + bd) Wu + bu)`, with
 * x what the block reads and z what it adds to the residual stream. `scaling` is s: 1 for the plain one, 4 or 2 in the
 * paper's experiments, or learned. Target `role:attention` puts it beside attention. Wu starts at zero, so that the
 * adapted model equals the base before training.
 */
export default defineMethod({
  id: 'parallel',
  summary: 'Scaled bottleneck adapters beside the feed-forward block',
  paper: { title: 'Towards a Unified View of Parameter-Efficient Transfer Learning', arxiv: '2110.04366' },
  config: z.strictObject(bottleneckSettings({ reduction: 2, activation: 'relu', scaling: 4 })),
  sites: {
    sublayer: {
      params: ({ dim }, config) => bottleneckParams(dim, config),
      attach: (op, { x, z, path }, params, config, context) => ({
        z: op.Add(z, bottleneck(op, x, params, config, context, path)),
      }),
      fold: NON_LINEAR,
    },
  },
  defaultTargets: 'role:feed-forward',
  otherwise: NO_BLOCKS,
});
