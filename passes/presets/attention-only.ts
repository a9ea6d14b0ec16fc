import { z } from 'zod';
import { definePreset } from './preset.js';

/** Full training of the projections of attention, cross-attention included; everything else stays frozen. It folds. */
export default definePreset({
  id: 'attention-only',
  summary: 'Full training of the projections of attention',
  paper: {
    title: 'Cross-Attention is All You Need: Adapting Pretrained Transformers for Machine Translation',
    arxiv: '2104.08771',
  },
  config: z.strictObject({}),
  entries: () => [
    {
      method: 'full',
      targeting: {
        targets: ['role:query', 'role:key', 'role:value', 'role:packed', 'role:attention-output'],
      },
    },
  ],
});
