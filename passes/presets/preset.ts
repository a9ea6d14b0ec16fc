/** Presets: compositions of methods under a name of their own. */
import type { z } from 'zod';
import type { InsertEntry } from '../insert/entry.js';
import type { Configurable } from '../methods/contract/configurable.js';
import type { Paper } from '../methods/contract/method.js';

/** Several methods that belong together, with settings for all of them. */
export interface Preset extends Configurable {
  /** One sentence for listings. */
  readonly summary: string;
  readonly paper: Paper;
  /** The methods, in the order in which they stack where they meet. */
  entries(config: Record<string, unknown>): readonly InsertEntry[];
}

export interface PresetDefinition<Schema extends z.ZodType> {
  readonly id: string;
  readonly summary: string;
  readonly paper: Paper;
  readonly config: Schema;
  entries(config: z.output<Schema>): readonly InsertEntry[];
}

/** Declares a preset with its configuration inferred, which the result forgets. */
export function definePreset<Schema extends z.ZodType>(definition: PresetDefinition<Schema>): Preset {
  return definition as unknown as Preset;
}
