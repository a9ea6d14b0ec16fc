import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { zeros } from '../../src/initializer.js';
import { defineMethod } from './contract/method.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({});

/** Bias-efficient fine-tuning: `b' = b + Δ`. A module without a bias has no tensor that Δ could go into. */
export default defineMethod({
  id: 'beft',
  summary: 'A change of the bias beside the bias',
  paper: {
    title: 'BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes',
    arxiv: '2509.15974',
  },
  config,
  internal: ofFiles('BEFT'),
  sites: {
    linear: {
      refuses: ({ bias }) => (bias ? undefined : 'it has no bias'),
      ...onWeights(
        ({ outDim }) => ({ delta: { shape: [1, outDim], init: zeros, key: 'beft_bias' } }),
        (op, { b }, { delta }, _config, { outDim }) => ({
          b: op.Add(b as Value, op.Reshape(delta, [outDim])),
        }),
      ),
    },
  },
  peft: {
    types: ['BEFT'],
    tensors: { linear: { delta: { key: 'beft_bias' } } },
    settings: () => ({}),
    config: () => ({}),
  },
});
