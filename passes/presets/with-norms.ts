/** Adapters as their papers train them: together with the gains and offsets of all norms. */
import type { Method } from '../methods/contract/method.js';
import { definePreset, type Preset } from './preset.js';

/** `<id>-ln`: the method with `ln-tuning` beside it. Its settings are those of the method. */
export function withNorms(method: Method): Preset {
  return definePreset({
    id: `${method.id}-ln`,
    summary: `${method.summary}, with trained norms`,
    paper: method.paper,
    config: method.config,
    entries: (config) => [{ method, config }, { method: 'ln-tuning' }],
  });
}
