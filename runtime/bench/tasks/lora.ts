/** The adapter of all figures. */
import { type InsertReport, insert } from '../../../passes/insert/insert.js';
import type { Model } from '../../../src/model.js';

/** Inserts LoRA with alpha 16. */
export function withLora(
  model: Model,
  rank: number,
  targets: 'all-linear' | readonly string[],
): InsertReport {
  return insert(model, {
    method: 'lora',
    config: { rank, alpha: 16 },
    targeting: { targets: typeof targets === 'string' ? targets : [...targets] },
  });
}
