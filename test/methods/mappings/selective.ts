/** Methods that train parts of the base, or scale it. */
import {
  byRole,
  entryOf,
  type MethodMapping,
  type Reference,
  same,
  transposed,
} from '../reference-support.js';

const inPlace = byRole({ weight: ['weight', transposed], bias: ['bias', same] });

const ia3 = (reference: Reference, config: Readonly<Record<string, unknown>>) =>
  entryOf(reference, { feedforward: config.feedforwardModules ?? [] }, 'ia3');

export const selective: Readonly<Record<string, MethodMapping>> = {
  ia3: {
    entries: (reference) => [ia3(reference, reference.config)],
    translate: byRole({ ia3_l: ['ia3_l', same] }),
  },
  stack: {
    entries: (reference) => {
      const { order, rank, alpha } = reference.config;
      const entries = { ia3: ia3(reference, {}), lora: entryOf(reference, { rank, alpha }, 'lora') };
      return (order as (keyof typeof entries)[]).map((id) => entries[id]);
    },
    translate: byRole({
      ia3_l: ['ia3_l', same],
      'lora_A.weight': ['lora_A', transposed],
      'lora_B.weight': ['lora_B', transposed],
    }),
  },
  bitfit: { translate: inPlace },
  'layer-norm': {
    entries: (reference) => [entryOf(reference, {}, 'ln-tuning')],
    translate: byRole({
      'ln_tuning_layers.weight': ['ln_tuning_layers.weight', same],
      'ln_tuning_layers.bias': ['ln_tuning_layers.bias', same],
    }),
  },
  'attention-only': { entries: (reference) => [entryOf(reference, {}, 'full')], translate: inPlace },
  hiwi: {
    entries: (reference) => {
      const { rank, of } = reference.config;
      return [entryOf(reference, { rank, on: of })];
    },
    translate: byRole({ hiwi_down: ['hiwi_down', same], hiwi_up: ['hiwi_up', same] }),
  },
  pafi: {
    entries: (reference) => {
      const { ratio, scope } = reference.config;
      return [entryOf(reference, { ratio, scope: scope === 'global' ? 'model' : 'tensor' })];
    },
    // The recorded places are left out: ours have to be the same for the recorded entries to fit.
    translate: (recorded, ...rest) =>
      byRole({ pafi_values: ['pafi_values', same] })(
        recorded.filter(({ param }) => param.role !== 'pafi_indices'),
        ...rest,
      ),
  },
};
