/** Modules that are trained in full beside a method: PEFT's `modules_to_save`. */
import type { InsertEntry } from './entry.js';

/**
 * The entry that trains them: every linear, embedding and norm whose path is one of the names, ends in one, or lies
 * within such a module (`classifier` takes `classifier.dense` along). Names are regular expressions, as in PEFT; give the
 * other entries the same list as `targeting.modulesToSave`, so that they leave these modules alone.
 */
export function savedModules(names: readonly string[]): InsertEntry {
  const any = names.map((name) => `(?:${name})`).join('|');
  return { method: 'full', targeting: { targets: `(?:.*\\.)?(?:${any})(?:\\..*)?` } };
}
