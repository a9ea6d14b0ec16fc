/** All gradient rules, by operator. A new rule joins the list of its family; a new family joins `FAMILIES`. */
import type { Node } from '../../src/graph.js';
import { hasExpansion } from '../normalize/expand.js';
import { activations } from './activation.js';
import { arithmetic } from './arithmetic.js';
import { casts } from './cast.js';
import { convolutions } from './convolution.js';
import { einsums } from './einsum.js';
import { elementwise } from './elementwise.js';
import { indexings } from './indexing.js';
import { products } from './matmul.js';
import { movements } from './movement.js';
import { normalizations } from './normalization.js';
import { poolings } from './pooling.js';
import { quantised } from './quantized.js';
import { reductions } from './reduction.js';
import { resizes } from './resize.js';
import { rotaries } from './rotary.js';
import type { Gradient } from './rule.js';
import { softmaxes } from './softmax.js';

const FAMILIES = [
  elementwise,
  arithmetic,
  activations,
  softmaxes,
  reductions,
  normalizations,
  products,
  einsums,
  convolutions,
  poolings,
  resizes,
  movements,
  indexings,
  rotaries,
  casts,
  quantised,
];

function key(op: string, domain: string): string {
  return `${domain}:${op}`;
}

function indexed(gradients: readonly Gradient[]): ReadonlyMap<string, readonly Gradient[]> {
  const index = new Map<string, Gradient[]>();
  for (const gradient of gradients) {
    const name = key(gradient.op, gradient.domain ?? '');
    index.set(name, [...(index.get(name) ?? []), gradient]);
  }
  return index;
}

const byOp = indexed(FAMILIES.flat());

/** Every registered rule. */
export function allGradients(): readonly Gradient[] {
  return FAMILIES.flat();
}

/** The rule for a node under an opset version of its domain. */
export type GradientLookup = (node: Node, opset: number) => Gradient | undefined;

/** Looks in rules of one's own first, then in those that ship. */
export function gradientLookup(own: readonly Gradient[] = []): GradientLookup {
  const indexes = own.length === 0 ? [byOp] : [indexed(own), byOp];
  return (node, opset) => {
    for (const index of indexes) {
      const found = index
        .get(key(node.op, node.domain))
        ?.find(({ opsets }) => opsets === undefined || (opset >= opsets[0] && opset <= opsets[1]));
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

/** Whether some version of the operator has a gradient rule, or is expanded into ops that have. */
export function hasGradient(op: string, domain = ''): boolean {
  return byOp.has(key(op, domain)) || hasExpansion(op, domain);
}

/** `hasGradient`, rules of one's own included. */
export function gradientTest(own: readonly Gradient[] = []): (op: string, domain?: string) => boolean {
  const index = indexed(own);
  return (op, domain = '') => index.has(key(op, domain)) || hasGradient(op, domain);
}
