import { z } from 'zod';
import { definePreset } from './preset.js';

/** The projections of attention, trained in full: everything else stays frozen. */
export default definePreset({
  id: 'attention-only',
  summary: 'Full training of the projections of attention',
  paper: {
    title: 'Three things everyone should know about Vision Transformers',
    arxiv: '2203.09795',
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
