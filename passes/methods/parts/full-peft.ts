/** Weights and biases that PEFT stores whole: `modules_to_save`, `bias`, and embeddings of targeted models. */

import type { PeftFormat } from '../contract/peft-format.js';
import { overWindow } from './convolution.js';
import { TENSORS } from './in-place.js';

const weight = { key: 'weight', weight: true, convolved: overWindow } as const;
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
  // A copy of the whole module, but for biases alone.
  accompany: (modules) => {
    const whole = modules.filter(({ shapes }) => shapes.weight !== undefined).map(({ path }) => path);
    return {
      ...(whole.length > 0 ? { modules_to_save: whole } : {}),
      ...(whole.length < modules.length ? { bias: 'all' } : {}),
    };
  },
};
