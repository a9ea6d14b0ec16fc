/** LoRA and what descends from it: matrices are the transposes of PEFT's, and tensors of other ranks are PEFT's own. */

import { savedModules } from '../../../passes/insert/saved-modules.js';
import loha from '../../../passes/methods/loha.js';
import lokr from '../../../passes/methods/lokr.js';
import vbLora from '../../../passes/methods/vb-lora.js';
import vera from '../../../passes/methods/vera.js';
import { byPeft, byRole, entryOf, type MethodMapping, same, transposed } from '../reference-support.js';

const lora = {
  'lora_A.weight': ['lora_A', transposed],
  'lora_B.weight': ['lora_B', transposed],
  lora_embedding_A: ['lora_embedding_A', transposed],
  lora_embedding_B: ['lora_embedding_B', transposed],
  'base_layer.bias': ['base_layer.bias', same],
} as const;

export const loraFamily: Readonly<Record<string, MethodMapping>> = {
  lora: {
    entries: (reference) => {
      const { modulesToSave = [], ...config } = reference.config;
      const saved = modulesToSave as string[];
      const entry = entryOf(reference, config);
      if (saved.length === 0) return [entry];
      return [{ ...entry, targeting: { ...entry.targeting, modulesToSave: saved } }, savedModules(saved)];
    },
    translate: byRole({ ...lora, weight: ['weight', transposed], bias: ['bias', same] }),
  },
  dora: { translate: byRole({ ...lora, lora_magnitude_vector: ['lora_magnitude_vector', same] }) },
  loha: { translate: byPeft(loha) },
  lokr: { translate: byPeft(lokr) },
  krona: { translate: byRole({ krona_a: ['krona_a', same], krona_b: ['krona_b', same] }) },
  vera: { translate: byPeft(vera) },
  'lora-xs': {
    translate: byRole({
      lora_A: ['lora_A', same],
      lora_B: ['lora_B', same],
      lora_xs: ['lora_xs', same],
    }),
  },
  'vb-lora': {
    entries: (reference) => {
      const { length, ...config } = reference.config;
      return [entryOf(reference, { ...config, vectorLength: length })];
    },
    translate: byPeft(vbLora, { vectorLength: 8 }),
  },
};
