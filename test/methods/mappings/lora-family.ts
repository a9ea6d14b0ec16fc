/** LoRA and what descends from it: matrices are the transposes of PEFT's, and tensors of other ranks are PEFT's own. */
import { savedModules } from '../../../passes/insert/saved-modules.js';
import { byRole, entryOf, type MethodMapping, same, transposed } from '../reference-support.js';

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
  loha: {
    translate: byRole({
      hada_w1_a: ['hada_w1_a', transposed],
      hada_w1_b: ['hada_w1_b', transposed],
      hada_w2_a: ['hada_w2_a', transposed],
      hada_w2_b: ['hada_w2_b', transposed],
    }),
  },
  lokr: {
    translate: byRole({
      lokr_w1: ['lokr_w1', transposed],
      lokr_w1_a: ['lokr_w1_a', transposed],
      lokr_w1_b: ['lokr_w1_b', transposed],
      lokr_w2: ['lokr_w2', transposed],
      lokr_w2_a: ['lokr_w2_a', transposed],
      lokr_w2_b: ['lokr_w2_b', transposed],
    }),
  },
  krona: { translate: byRole({ krona_a: ['krona_a', same], krona_b: ['krona_b', same] }) },
  vera: {
    translate: byRole({
      vera_A: ['vera_A', transposed],
      vera_B: ['vera_B', transposed],
      vera_lambda_b: ['vera_lambda_b', same],
      vera_lambda_d: ['vera_lambda_d', same],
    }),
  },
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
    translate: byRole({
      vblora_logits_A: ['vblora_logits_A', same],
      vblora_logits_B: ['vblora_logits_B', same],
      vblora_vector_bank: ['vblora_vector_bank', same],
    }),
  },
};
