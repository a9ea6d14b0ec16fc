/** LoRA and DoRA as PEFT stores them. */
import { isSet, numberOf, type PeftConfig, type PeftFormat, refusedFields } from '../contract/peft-format.js';

const IN_PYTHON = 'merge it in Python (merge_and_unload) and export that model instead';

/** Variants whose added term is no product of A and B alone. */
const VARIANTS: Readonly<Record<string, string>> = {
  alora_invocation_tokens:
    'aLoRA acts behind an invocation sequence only, which no weight does; serve it with PEFT',
  use_qalora: 'QALoRA pools the inputs of a quantised base; serve it with PEFT',
  use_bdlora: `BD-LoRA's factors are block-diagonal; ${IN_PYTHON}`,
  arrow_config: 'Arrow routes every token through several adapters, which no weight does; serve it with PEFT',
  kasa_config: `KaSA changes the base's weights before training; ${IN_PYTHON}`,
  target_parameters: `it adapts parameters that are no modules (experts); ${IN_PYTHON}`,
  layer_replication: `it replicates layers, so that its model has more layers than its base; ${IN_PYTHON}`,
};

/** Initialisations that subtract what A and B start as from the base. */
const RESIDUAL = /^(pissa|olora|corda|lora_ga|loftq)/;

/** Of these the subtracted part can be computed again from the base. */
function startOf({ init_lora_weights: init, use_dora }: PeftConfig): 'pissa' | 'olora' | undefined {
  return use_dora !== true && (init === 'pissa' || init === 'olora') ? init : undefined;
}

export function refusesLora(config: PeftConfig): string | undefined {
  const init = config.init_lora_weights;
  if (typeof init === 'string' && RESIDUAL.test(init))
    return `its initialisation '${init}' changed the base's weights, so that A and B do not fit the original base; save it with save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it a plain LoRA`;
  return refusedFields(config, VARIANTS);
}

const rank = (config: PeftConfig) => ({
  rank: numberOf(config, 'r', 8),
  alpha: numberOf(config, 'lora_alpha', 8),
  rslora: config.use_rslora === true,
  dropout: numberOf(config, 'lora_dropout', 0),
});

const fields = (settings: Readonly<Record<string, unknown>>) => ({
  r: settings.rank,
  lora_alpha: settings.alpha,
  use_rslora: settings.rslora,
  lora_dropout: settings.dropout,
});

const linear = {
  A: { key: 'lora_A.weight', transposed: true },
  B: { key: 'lora_B.weight', transposed: true },
} as const;

const embedding = {
  A: { key: 'lora_embedding_A', transposed: true },
  B: { key: 'lora_embedding_B', transposed: true },
} as const;

const patterns = { r: 'rank_pattern', lora_alpha: 'alpha_pattern' } as const;

export const loraFormat: PeftFormat = {
  types: ['LORA'],
  when: (config) => config.use_dora !== true && startOf(config) === undefined,
  refuses: refusesLora,
  tensors: {
    linear: { ...linear, bias: { key: 'base_layer.bias' }, shift: { key: 'lora_B.bias' } },
    embedding,
  },
  // What MonteCLoRA samples with, and VeLoRA packs activations with.
  ignores: ['.lora_monteclora_sampler.', '.lora_velora_embed'],
  patterns,
  settings: (config, module) => ({
    ...rank(config),
    bias: module?.shapes.has('base_layer.bias') === true ? 'lora_only' : 'none',
    loraBias: module === undefined ? isSet(config, 'lora_bias') : module.shapes.has('lora_B.bias'),
  }),
  config: (settings, modules) =>
    settings.gating === true
      ? 'PEFT has no gated LoRA'
      : {
          ...fields(settings),
          bias: modules.some(({ shapes }) => shapes.bias !== undefined) ? 'lora_only' : 'none',
          lora_bias: modules.some(({ shapes }) => shapes.shift !== undefined),
        },
};

export const doraFormat: PeftFormat = {
  types: ['LORA'],
  when: (config) => config.use_dora === true,
  refuses: refusesLora,
  tensors: {
    linear: { ...linear, m: { key: 'lora_magnitude_vector' } },
    embedding: { ...embedding, m: { key: 'lora_magnitude_vector' } },
  },
  patterns,
  settings: (config) => rank(config),
  config: (settings) => ({ ...fields(settings), use_dora: true }),
};

export const residualFormat: PeftFormat = {
  types: ['LORA'],
  when: (config) => startOf(config) !== undefined,
  refuses: (config) =>
    config.fan_in_fan_out === true && startOf(config) === 'olora'
      ? `OLoRA decomposes the stored matrix, which is another one in Conv1D modules; ${IN_PYTHON}`
      : refusedFields(config, VARIANTS),
  tensors: { linear },
  patterns,
  settings: (config) => ({ ...rank(config), start: startOf(config) }),
  config: (settings) => ({ ...fields(settings), init_lora_weights: settings.start }),
};
