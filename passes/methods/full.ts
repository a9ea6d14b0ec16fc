import { z } from 'zod';
import { defineMethod } from './contract/method.js';
import { fullFormat } from './parts/full-peft.js';
import { inPlace, SHAPES_OF, TENSORS, trainedInPlace } from './parts/in-place.js';

const config = z.strictObject({
  tensors: z
    .array(z.enum(TENSORS))
    .min(1)
    .default([...TENSORS])
    .describe("Which of a module's tensors train: its weight (gain of a norm), its bias (offset of a norm)"),
});

/**
 * The module itself trains: `W' = W_trained, b' = b_trained`, starting at the base's values. On a classifier it is PEFT's
 * `modules_to_save`; on query, key, value and attention output it is attention-only tuning (arXiv 2104.08771). The
 * adapter file holds the trained tensors whole. Weight decay, where it is set, acts on all of them, biases and norms
 * included: it pulls them to zero, not to the base.
 */
export default defineMethod({
  id: 'full',
  summary: 'Train weights and biases of the chosen modules in full',
  paper: {
    title: 'Cross-Attention is All You Need: Adapting Pretrained Transformers for Machine Translation',
    arxiv: '2104.08771',
  },
  config,
  learningRate: 2e-4,
  sites: {
    linear: {
      refuses: ({ bias }, { tensors }) =>
        bias || tensors.includes('weight') ? undefined : 'it has no bias to train',
      params: (site, { tensors }) => trainedInPlace(SHAPES_OF.linear(site), tensors),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
    embedding: {
      refuses: (_site, { tensors }) => (tensors.includes('weight') ? undefined : 'an embedding has no bias'),
      params: (site, { tensors }) => trainedInPlace(SHAPES_OF.embedding(site), tensors),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params) as { w: NonNullable<typeof params.weight> },
    },
    norm: {
      refuses: ({ bias }, { tensors }) =>
        bias || tensors.includes('weight') ? undefined : 'it has no offset to train',
      params: (site, { tensors }) => trainedInPlace(SHAPES_OF.norm(site), tensors),
      attach: (_op, _site, params) => inPlace(params),
      fold: (_op, _stored, params) => inPlace(params),
    },
  },
  peft: fullFormat,
});
