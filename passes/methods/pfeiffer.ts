import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { bottleneckRules, bottleneckSettings, NO_BLOCKS } from './parts/bottleneck.js';

/**
 * Pfeiffer adapters. One bottleneck per layer, behind the feed-forward block: `z' = z + s·(f(u Wd + bd) Wu + bu)`, with
 * z what the block adds to the residual stream h. In post-norm models u = LN(z + h), the layer's own normalization
 * applied before the adapter and again after it: `out = LN(A(LN(z + h)) + z + h)`; in pre-norm models u = z + h. Wu starts
 * at zero, so that the adapted model equals the base before training; `init: bert` starts as AdapterHub does.
 */
export default defineMethod({
  id: 'pfeiffer',
  summary: 'One bottleneck adapter per layer, behind the feed-forward block',
  paper: {
    title: 'AdapterFusion: Non-Destructive Task Composition for Transfer Learning',
    arxiv: '2005.00247',
  },
  config: z.strictObject(bottleneckSettings({ reduction: 16, activation: 'relu', scaling: 1 })),
  sites: { sublayer: bottleneckRules((op, { z, residual, normalize }) => normalize(op.Add(z, residual))) },
  defaultTargets: 'role:feed-forward',
  otherwise: NO_BLOCKS,
});
