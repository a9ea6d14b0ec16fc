/** LoRA and DoRA as PEFT stores them. */
import { isSet, numberOf, type PeftConfig, type PeftFormat, refusedFields } from '../contract/peft-format.js';
import { acrossChannels, besideWindow, overWindow } from './convolution.js';
import { factorsByExpert } from './lora-experts.js';

const IN_PYTHON = 'merge it in Python (merge_and_unload) and export that model instead';

/** Variants whose added term is no product of A and B alone. */
const REFUSED: Readonly<Record<string, string>> = {
  alora_invocation_tokens:
    'aLoRA acts behind an invocation sequence only, which no weight does; serve it with PEFT',
  arrow_config: 'Arrow routes every token through several adapters, which no weight does; serve it with PEFT',
  layer_replication: `it replicates layers, so that its model has more layers than its base; ${IN_PYTHON}`,
};

/** Initialisations that subtract what A and B start as from the base, and where that comes from. */
const LOST: readonly (readonly [RegExp, string])[] = [
  [/^pissa_niter/, 'an approximate decomposition that starts from random numbers'],
  [/^corda/, 'activations over data'],
  [/^lora_ga/, 'gradients over data'],
  [/^loftq/, 'rounding by bitsandbytes on a GPU'],
];

/** Of these the subtracted part can be computed again from the base. */
function startOf({ init_lora_weights: init }: PeftConfig): 'pissa' | 'olora' | undefined {
  return init === 'pissa' || init === 'olora' ? init : undefined;
}

/** What makes a LoRA another method here. PEFT allows one of them at most, but for DoRA over a residual. */
const VARIANTS = ['use_bdlora', 'use_qalora', 'kasa_config', 'use_dora'] as const;

function isPlain(config: PeftConfig): boolean {
  return startOf(config) === undefined && VARIANTS.every((field) => !isSet(config, field));
}

/** Whether a configuration is of one variant alone. */
function only(field: (typeof VARIANTS)[number]): (config: PeftConfig) => boolean {
  return (config) => isSet(config, field) && (field !== 'use_dora' || startOf(config) === undefined);
}

export function refusesLora(config: PeftConfig): string | undefined {
  const { init_lora_weights: init } = config;
  const lost = LOST.find(([pattern]) => typeof init === 'string' && pattern.test(init));
  if (lost !== undefined)
    return `its initialisation '${init}' took from the base's weights what follows from ${lost[1]} and is in no file, so that A and B do not fit the original base; save it with save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it a plain LoRA`;
  if (isSet(config, 'target_parameters') && (isSet(config, 'rank_pattern') || isSet(config, 'alpha_pattern')))
    return `it adapts parameters that are no modules (experts), with patterns of ranks or alphas; ${IN_PYTHON}`;
  return refusedFields(config, REFUSED);
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
  A: { key: 'lora_A.weight', transposed: true, convolved: overWindow },
  B: { key: 'lora_B.weight', transposed: true, convolved: besideWindow },
} as const;

const magnitude = { key: 'lora_magnitude_vector', convolved: acrossChannels } as const;

const embedding = {
  A: { key: 'lora_embedding_A', transposed: true },
  B: { key: 'lora_embedding_B', transposed: true },
} as const;

const patterns = { r: 'rank_pattern', lora_alpha: 'alpha_pattern' } as const;

export const loraFormat: PeftFormat = {
  types: ['LORA'],
  when: isPlain,
  refuses: refusesLora,
  tensors: {
    linear: { ...linear, bias: { key: 'base_layer.bias' }, shift: { key: 'lora_B.bias' } },
    embedding,
  },
  rearranged: factorsByExpert,
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
  when: only('use_dora'),
  refuses: refusesLora,
  tensors: {
    linear: { ...linear, m: magnitude },
    embedding: { ...embedding, m: { key: 'lora_magnitude_vector' } },
  },
  patterns,
  settings: (config) => rank(config),
  config: (settings) => ({ ...fields(settings), use_dora: true }),
};

export const residualFormat: PeftFormat = {
  types: ['LORA'],
  when: (config) => startOf(config) !== undefined,
  refuses: (config) => {
    const other = VARIANTS.find((field) => field !== 'use_dora' && isSet(config, field));
    if (other !== undefined)
      return `its initialisation '${startOf(config)}' changed the base, and ${other} put other factors in the place of those that it had made; ${IN_PYTHON}`;
    return config.fan_in_fan_out === true && startOf(config) === 'olora'
      ? `OLoRA decomposes the stored matrix, which is another one in Conv1D modules; ${IN_PYTHON}`
      : refusesLora(config);
  },
  tensors: { linear: { ...linear, m: { key: 'lora_magnitude_vector' } } },
  patterns,
  settings: (config) => ({ ...rank(config), start: startOf(config), dora: config.use_dora === true }),
  config: (settings) => ({
    ...fields(settings),
    init_lora_weights: settings.start,
    use_dora: settings.dora === true,
  }),
};

export const kasaFormat: PeftFormat = {
  types: ['LORA'],
  when: only('kasa_config'),
  refuses: refusesLora,
  tensors: { linear: { ...linear, diagonal: { key: 'lora_diag' } } },
  patterns,
  settings: rank,
  // Weights of its regularisation; without any the type would be a plain LoRA.
  config: (settings) => ({ ...fields(settings), kasa_config: { beta: 0.0001, gamma: 0.001 } }),
};

export const blockDiagonalFormat: PeftFormat = {
  types: ['LORA'],
  when: only('use_bdlora'),
  refuses: refusesLora,
  tensors: { linear },
  patterns,
  settings: (config, module) => {
    const { nblocks } = config.use_bdlora as { readonly nblocks?: number };
    const side = module === undefined ? undefined : blockDiagonalSide(config, module.name);
    return { ...rank(config), ...(side === undefined ? {} : { side, blocks: nblocks ?? 1 }) };
  },
  config: (settings, modules) => {
    const names = (side: string) => [
      ...new Set(modules.filter(({ settings }) => settings.side === side).map(({ path }) => lastName(path))),
    ];
    const patterns = { A: names('A'), B: names('B') };
    const blocks = [
      ...new Set(modules.flatMap(({ settings: { side, blocks } }) => (side === 'none' ? [] : [blocks]))),
    ];
    const written = {
      ...fields(settings),
      use_bdlora: {
        target_modules_bd_a: patterns.A,
        target_modules_bd_b: patterns.B,
        nblocks: blocks[0] ?? 1,
        match_strict: false,
      },
    };
    const unnamed = modules.find(
      ({ path, settings: { side = 'none' } }) => (blockDiagonalSide(written, path) ?? 'none') !== side,
    );
    if (blocks.length > 1)
      return `PEFT has one number of blocks for all modules, and here are ${blocks.join(', ')}`;
    return unnamed === undefined
      ? written
      : `PEFT names modules of block-diagonal factors by parts of their last names, and those of '${unnamed.path}' stand for others, too`;
  },
};

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}

/** Which factor of a module is block-diagonal: PEFT looks for parts of its last name. */
function blockDiagonalSide({ use_bdlora }: PeftConfig, path: string): 'A' | 'B' | undefined {
  const patterns = use_bdlora as Readonly<Record<string, readonly string[] | null | undefined>>;
  const named = (field: string) => (patterns[field] ?? []).some((part) => lastName(path).includes(part));
  return named('target_modules_bd_a') ? 'A' : named('target_modules_bd_b') ? 'B' : undefined;
}

export const pooledFormat: PeftFormat = {
  types: ['LORA'],
  when: only('use_qalora'),
  refuses: refusesLora,
  tensors: { linear },
  patterns,
  settings: (config) => ({ ...rank(config), group: numberOf(config, 'qalora_group_size', 16) }),
  config: (settings) => ({ ...fields(settings), use_qalora: true, qalora_group_size: settings.group }),
};
