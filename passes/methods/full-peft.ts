/** Weights and biases that PEFT stores whole: `modules_to_save`, `bias`, and embeddings of targeted models. */
import { TENSORS } from './in-place.js';
import type { PeftFormat } from './peft-format.js';

const weight = { key: 'weight', weight: true } as const;
const bias = { key: 'bias' } as const;

export const fullFormat: PeftFormat = {
  types: [],
  accompanies: true,
  tensors: {
    linear: { weight, bias },
    embedding: { weight: { key: 'weight' } },
    norm: { weight: { key: 'weight' }, bias },
  },
  settings: (_config, module) => ({
    tensors: TENSORS.filter((name) => module === undefined || module.shapes.has(name)),
  }),
  config: () => ({}),
};
