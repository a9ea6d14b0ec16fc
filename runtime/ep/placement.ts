/** Which nodes a provider has no kernel for, by what it declares. */
import { walkNodes } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { dtypeOf } from '../../src/value-type.js';
import type { ExecutionProvider } from './provider.js';

const SHOWN = 8;

/**
 * `Mod (2 nodes), Cast of int64 (1 node)`: operators that would run on the CPU, the most frequent first. Undefined where
 * the provider declares no kernels, or none is found missing.
 */
export function withoutKernel(model: Model, provider: ExecutionProvider): string | undefined {
  const { kernels, needs } = provider;
  if (kernels === undefined) return undefined;
  inferModel(model);
  const counts = new Map<string, number>();
  for (const node of walkNodes(model.graph)) {
    const wide =
      needs?.narrowIntegers === true &&
      [...node.inputs, ...node.outputs].some(
        (value) => value !== null && value.tensor === undefined && dtypeOf(value) === 'int64',
      );
    const lacking = node.domain === '' && !kernels.has(node.op);
    if (!wide && !lacking) continue;
    const what = lacking ? node.qualifiedOp : `${node.qualifiedOp} of int64`;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  const found = [...counts].sort(([, a], [, b]) => b - a);
  if (found.length === 0) return undefined;
  const shown = found.slice(0, SHOWN).map(([op, n]) => `${op} (${n} node${n === 1 ? '' : 's'})`);
  return found.length > SHOWN ? `${shown.join(', ')} and ${found.length - SHOWN} more` : shown.join(', ');
}
