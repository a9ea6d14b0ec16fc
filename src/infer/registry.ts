/** All inference rules by domain and operator. */
import type { Rule, Rules } from './call.js';
import { attentions } from './rules/attention.js';
import { contrib } from './rules/contrib.js';
import { control } from './rules/control.js';
import { convolutions } from './rules/conv.js';
import { create } from './rules/create.js';
import { einsums } from './rules/einsum.js';
import { elementwise } from './rules/elementwise.js';
import { linear } from './rules/linear.js';
import { movement } from './rules/movement.js';
import { normalization, quantization } from './rules/norm.js';
import { recurrences } from './rules/recurrent.js';
import { reductions } from './rules/reduce.js';

const BY_DOMAIN: Readonly<Record<string, Rules>> = {
  '': {
    ...elementwise,
    ...linear,
    ...movement,
    ...create,
    ...reductions,
    ...normalization,
    ...quantization,
    ...convolutions,
    ...recurrences,
    ...einsums,
    ...attentions,
    ...control,
  },
  'com.microsoft': contrib,
};

/** The rule of an operator, or undefined when nothing is known of it. */
export function ruleOf(domain: string, op: string): Rule | undefined {
  const rules = BY_DOMAIN[domain];
  return rules !== undefined && Object.hasOwn(rules, op) ? rules[op] : undefined;
}
