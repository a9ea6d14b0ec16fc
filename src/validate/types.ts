/** Types that values carry against types inferred anew, so that a stale type has nowhere to live. */
import { cloneModel } from '../clone.js';
import { walkNodes } from '../graph.js';
import { inferModel } from '../infer/index.js';
import type { Model } from '../model.js';
import { formatType, type Shape, type ValueType } from '../types.js';
import type { Report } from './problem.js';

/** Compares on a copy: the model itself is not touched. Needs a model whose structure is valid. */
export function checkTypes(model: Model, report: Report): void {
  const { model: copy, values } = cloneModel(model);
  for (const graph of [copy.graph, ...copy.functions.map((fn) => fn.graph)])
    for (const node of walkNodes(graph))
      for (const output of node.outputs) if (output !== null) output.type = undefined;
  for (const { where, message } of inferModel(copy))
    report({ rule: 'types', where, message, remedy: REMEDY });
  for (const [value, fresh] of values) {
    const reason = contradiction(value.type, fresh.type);
    if (reason === undefined) continue;
    report({
      rule: 'types',
      where: value.producer?.label ?? value.label,
      message: `'${value.label}' is declared as ${formatType(value.type)} but inferred as ${formatType(fresh.type)}: ${reason}`,
      remedy: REMEDY,
    });
  }
}

const REMEDY = 'Run inferModel after changing what a value is computed from, or correct the operator';

/**
 * Why two types cannot both hold, or undefined when they can. Unknown fits everything; a symbol fits every dimension,
 * since different symbols may be equal.
 */
export function contradiction(a: ValueType | undefined, b: ValueType | undefined): string | undefined {
  if (a === undefined || b === undefined) return undefined;
  if (a.kind === 'tensor' || a.kind === 'sparse') {
    if (a.kind !== b.kind) return 'they are of different kinds';
    if (a.dtype !== b.dtype && a.dtype !== 'undefined' && b.dtype !== 'undefined')
      return 'the element types differ';
    return shapeContradiction(a.shape, b.shape);
  }
  if (a.kind === 'sequence' || a.kind === 'optional')
    return a.kind === b.kind ? contradiction(a.element, b.element) : 'they are of different kinds';
  if (a.kind === 'map') {
    if (b.kind !== 'map') return 'they are of different kinds';
    return a.key === b.key ? contradiction(a.value, b.value) : 'the key types differ';
  }
  return a.kind === b.kind ? undefined : 'they are of different kinds';
}

function shapeContradiction(a: Shape | null, b: Shape | null): string | undefined {
  if (a === null || b === null) return undefined;
  if (a.length !== b.length) return `rank ${a.length} is not ${b.length}`;
  for (const [i, dim] of a.entries()) {
    const other = b[i];
    if (typeof dim === 'number' && typeof other === 'number' && dim !== other)
      return `dimension ${i} is ${dim} in one and ${other} in the other`;
  }
  return undefined;
}
