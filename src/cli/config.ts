/** The user's config file: compositions, training options, and methods, presets and passes of one's own. */
import { dirname, relative, resolve } from 'node:path';
import type { InsertEntry } from '../../passes/insert/entry.js';
import type { Method } from '../../passes/methods/contract/method.js';
import type { Pass } from '../../passes/pass.js';
import type { Preset } from '../../passes/presets/preset.js';
import type { ConfigFile, TrainConfig } from './config-schema.js';

export type { ConfigFile, TrainConfig } from './config-schema.js';

export interface UserConfig {
  /** The file; undefined where there is none. */
  readonly path?: string;
  readonly methods: readonly Method[];
  readonly presets: readonly Preset[];
  readonly passes: readonly Pass[];
  /** The composition; undefined where the file has none. */
  readonly entries?: readonly InsertEntry[];
  readonly modulesToSave: readonly string[];
  readonly seed?: number;
  /** Paths are those of files, whatever folder the config file is in. */
  readonly train: TrainConfig;
}

/** Declares a config file's content; identity with type checking. */
export function defineConfig(config: ConfigFile): ConfigFile {
  return config;
}

const NOTHING: UserConfig = { methods: [], presets: [], passes: [], modulesToSave: [], train: {} };

/**
 * Loads a config file: the one given, or `peft-compile.config.{json,yaml,yml,js,mjs,ts}` of the working directory;
 * `false` for none. TypeScript is read where Node itself reads it. Throws E_USAGE for a file that does not load or fit,
 * E_NO_MATCH for a method that does not exist.
 */
export async function loadUserConfig(given: string | false | undefined): Promise<UserConfig> {
  if (given === false) return NOTHING;
  const { findConfig, readConfig } = await import('./config-read.js');
  const path = given ?? findConfig(process.cwd());
  if (path === undefined) return NOTHING;
  const shown = relative(process.cwd(), resolve(path)) || path;
  const { module, content } = await readConfig(path);
  const { checkConfig } = await import('./config-check.js');
  const { adapters, modulesToSave = [], seed, train = {}, ...own } = checkConfig(content, shown, module);
  const { methods = [], presets = [], passes = [] } = own;
  return {
    path: shown,
    methods,
    presets,
    passes,
    ...(adapters === undefined ? {} : { entries: adapters.map(entryOf) }),
    modulesToSave,
    ...(seed === undefined ? {} : { seed }),
    train: fromFolder(train, dirname(path)),
  };
}

function entryOf({ method, config, ...targeting }: NonNullable<ConfigFile['adapters']>[number]): InsertEntry {
  return { method, targeting, ...(config === undefined ? {} : { config }) };
}

/** Files are named relative to the config file. */
function fromFolder(train: TrainConfig, folder: string): TrainConfig {
  const { tokenizer, evalData } = train;
  return {
    ...train,
    ...(tokenizer === undefined ? {} : { tokenizer: resolve(folder, tokenizer) }),
    ...(evalData === undefined ? {} : { evalData: resolve(folder, evalData) }),
  };
}
