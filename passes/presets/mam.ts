import { z } from 'zod';
import { ACTIVATION_NAMES } from '../methods/parts/activations.js';
import { definePreset } from './preset.js';

/**
 * Mix-and-match: short prefixes at every attention, and scaled parallel adapters beside the feed-forward blocks, which
 * get most of the parameters. Positions of the tokens do not count the prefix, as in the paper's code.
 */
export default definePreset({
  id: 'mam',
  summary: 'Prefixes at attention, scaled parallel adapters at feed-forward blocks',
  paper: { title: 'Towards a Unified View of Parameter-Efficient Transfer Learning', arxiv: '2110.04366' },
  config: z.strictObject({
    length: z.int().min(1).default(30).describe('Keys and values in front of every attention'),
    projection: z.boolean().default(true).describe('Train the prefixes as the output of an MLP'),
    size: z.int().min(1).default(512).describe('Width of the adapters'),
    scaling: z
      .union([z.number(), z.literal('learned')])
      .default(4)
      .describe('Factor s on the adapters'),
    activation: z.enum(ACTIVATION_NAMES).default('relu').describe('Activation of the adapters'),
  }),
  entries: ({ length, projection, ...adapter }) => [
    { method: 'prefix', config: { length, projection, positions: 'keep' } },
    { method: 'parallel', config: adapter },
  ],
});
