import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { bottleneckRules, bottleneckSettings, NO_BLOCKS } from './parts/bottleneck.js';

/**
 * Houlsby adapters. A bottleneck behind attention and behind the feed-forward block, before the residual sum:
 * `z' = z + s·(f(z Wd + bd) Wu + bu)`, with z what the block adds to the residual stream. The paper trains the gains and
 * offsets of norms too: add `ln-tuning` as a second method. Wu starts at zero, so that the adapted model equals the base
 * before training; `init: houlsby` starts as the paper does, close to the base.
 */
export default defineMethod({
  id: 'houlsby',
  summary: 'Bottleneck adapters behind attention and feed-forward blocks',
  paper: { title: 'Parameter-Efficient Transfer Learning for NLP', arxiv: '1902.00751' },
  config: z.strictObject(bottleneckSettings({ reduction: 16, activation: 'gelu', scaling: 1 })),
  sites: { sublayer: bottleneckRules((_op, { z }) => z) },
  defaultTargets: 'all',
  otherwise: NO_BLOCKS,
});
