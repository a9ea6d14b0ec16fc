/** The methods that know PEFT's files, by what a configuration says. */

import type { Method } from '../../passes/methods/contract/method.js';
import type { PeftConfig, PeftFormat } from '../../passes/methods/contract/peft-format.js';
import { FILE_METHODS } from '../../passes/methods/from-files.js';
import { METHODS } from '../../passes/methods/registry.js';
import { fail } from '../../src/errors.js';
import { unreadable } from './unreadable.js';

/** A method with its format. */
export interface FormattedMethod {
  readonly method: Method;
  readonly format: PeftFormat;
}

function formatted(own: readonly Method[]): FormattedMethod[] {
  return [...own, ...METHODS, ...FILE_METHODS].flatMap((method) =>
    method.peft === undefined ? [] : [{ method, format: method.peft }],
  );
}

/** The method that a folder is of. Throws E_UNSUPPORTED, with the reason, for configurations that are not read. */
export function methodOf(config: PeftConfig, where: string, own: readonly Method[] = []): FormattedMethod {
  const type = String(config.peft_type).toUpperCase();
  const all = formatted(own);
  const found = all.find(({ format: { types, when } }) => types.includes(type) && when?.(config) !== false);
  const reason = found?.format.refuses?.(config);
  if (found !== undefined && reason === undefined) return found;
  const readable = [...new Set(all.flatMap(({ format }) => format.types))];
  return fail('E_UNSUPPORTED', {
    message: `A PEFT adapter of type ${type} ${found === undefined ? 'is not read' : 'with this configuration is not read'}`,
    where,
    remedy: reason ?? unreadable(type) ?? `What is read: ${readable.join(', ')}`,
  });
}

/** A method of a record. Throws E_UNSUPPORTED where PEFT has no such method. */
export function formatOf(id: string, own: readonly Method[] = []): FormattedMethod {
  return (
    formatted(own).find(({ method }) => method.id === id) ??
    fail('E_UNSUPPORTED', {
      message: `PEFT has no ${id}`,
      remedy: 'Fold the adapter, or serve it with emit --target adapted',
    })
  );
}

/** Methods whose tensors may stand beside those of any type, those of the type itself first. */
export function accompanying(own: readonly Method[] = []): FormattedMethod[] {
  return formatted(own).filter(({ format }) => format.accompanies === true);
}
