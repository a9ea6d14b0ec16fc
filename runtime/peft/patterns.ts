/** Fields of a configuration that patterns set by module, as PEFT's `get_pattern_key` finds them. */
import type { PeftConfig, PeftFormat } from '../../passes/methods/contract/peft-format.js';
import { pythonRegex } from '../../passes/sites/python-regex.js';

/** The configuration as it is at a module. */
export function atModule(config: PeftConfig, { patterns = {} }: PeftFormat, path: string): PeftConfig {
  const own: Record<string, unknown> = {};
  for (const [field, patternField] of Object.entries(patterns)) {
    const values = config[patternField];
    if (typeof values !== 'object' || values === null) continue;
    const found = Object.entries(values).find(([pattern]) =>
      pythonRegex(pattern, (source) => `^(?:.*\\.)?(?:${source})$`).test(path),
    );
    if (found !== undefined) own[field] = found[1];
  }
  return { ...config, ...own };
}

/** A pattern that means one path. */
export function literalPattern(path: string): string {
  return path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
