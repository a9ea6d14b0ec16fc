import { z } from 'zod';
import { definePreset } from './preset.js';

/**
 * LoRA on query and value, prefixes at attention and a Pfeiffer adapter per layer, each multiplied by a gate that it
 * learns: one number per example. The gate takes the place of LoRA's scale. Positions of the tokens do not count the
 * prefix, as in the paper's code.
 */
export default definePreset({
  id: 'unipelt',
  summary: 'LoRA, prefixes and Pfeiffer adapters, each behind a learned gate',
  paper: {
    title: 'UniPELT: A Unified Framework for Parameter-Efficient Language Model Tuning',
    arxiv: '2110.07577',
  },
  config: z.strictObject({
    rank: z.int().min(1).default(8).describe('Rank of LoRA'),
    length: z.int().min(1).default(10).describe('Keys and values in front of every attention'),
    projection: z.boolean().default(true).describe('Train the prefixes as the output of an MLP'),
    hidden: z.int().min(1).default(512).describe('Width of that MLP'),
    reduction: z.number().positive().default(16).describe('Hidden size over width of the adapters'),
    size: z.int().min(1).optional().describe('Width of the adapters, instead of reduction'),
  }),
  entries: ({ rank, length, projection, hidden, reduction, size }) => [
    {
      method: 'lora',
      config: { rank, gating: true },
      targeting: { targets: ['role:query', 'role:value'] },
    },
    {
      method: 'prefix',
      config: { length, projection, positions: 'keep', gating: true, ...(projection ? { hidden } : {}) },
    },
    { method: 'pfeiffer', config: { ...(size === undefined ? { reduction } : { size }), gating: true } },
  ],
});
