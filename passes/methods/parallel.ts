import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { bottleneckRules, bottleneckSettings, NO_BLOCKS } from './parts/bottleneck.js';

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
  sites: { sublayer: bottleneckRules((_op, { x }) => x) },
  defaultTargets: 'role:feed-forward',
  otherwise: NO_BLOCKS,
});
