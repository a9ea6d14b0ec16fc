/** One configuration for all modules: what differs becomes a pattern, where PEFT has one. */
import type { PeftConfig, WrittenModule } from '../../passes/methods/contract/peft-format.js';
import { fail } from '../../src/errors.js';
import type { FormattedMethod } from './formats.js';
import { literalPattern } from './patterns.js';

/** Throws E_UNSUPPORTED for settings that PEFT does not have, or not by module. */
export function settledConfig(
  { method, format }: FormattedMethod,
  modules: readonly WrittenModule[],
): PeftConfig {
  const fields = modules.map(({ settings }) => {
    const config =
      format.config?.(settings, modules) ?? `${method.id} is read from PEFT's files and not written`;
    return typeof config === 'string' ? unsupported(config) : config;
  });
  const settled: Record<string, unknown> = {};
  for (const field of Object.keys(fields[0] ?? {})) {
    const values = fields.map((config) => config[field]);
    const common = mostFrequent(values);
    const others = modules.filter((_, i) => !same(values[i], common));
    settled[field] = common;
    const pattern = format.patterns?.[field];
    if (others.length > 0 && pattern === undefined)
      unsupported(`PEFT has one ${field} for all modules of ${method.id}; ${others[0]?.path} has another`);
    if (pattern !== undefined)
      settled[pattern] = Object.fromEntries(
        modules.flatMap(({ path }, i) =>
          same(values[i], common) ? [] : [[literalPattern(path), values[i]]],
        ),
      );
  }
  return settled;
}

function mostFrequent(values: readonly unknown[]): unknown {
  const counts = new Map<string, { value: unknown; count: number }>();
  for (const value of values) {
    const id = JSON.stringify(value) ?? '';
    const known = counts.get(id);
    if (known === undefined) counts.set(id, { value, count: 1 });
    else known.count++;
  }
  return [...counts.values()].sort((a, b) => b.count - a.count)[0]?.value;
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function unsupported(message: string): never {
  return fail('E_UNSUPPORTED', {
    message,
    remedy: 'Fold the adapter, or serve it with emit --target adapted',
  });
}
