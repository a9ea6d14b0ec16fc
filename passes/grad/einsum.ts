/** The gradient of Einsum: the same contraction with the operand's place taken by dy. */
import type { Value } from '../../src/graph.js';
import type { GradientContext } from './context.js';
import { defineGradient, type Gradient } from './rule.js';

interface Equation {
  readonly inputs: readonly string[];
  readonly output: string;
}

function parse(text: string): Equation {
  const [left = '', right] = text.replaceAll(' ', '').split('->');
  const inputs = left.split(',');
  if (right !== undefined) return { inputs, output: right };
  // Implicit form: ellipsis first, then the labels that appear once, sorted.
  const labels = inputs.join('').replaceAll('.', '');
  const once = [...new Set(labels)].filter((label) => labels.split(label).length === 2).sort();
  return { inputs, output: (left.includes('...') ? '...' : '') + once.join('') };
}

/** Labels of a term; the ellipsis counts as one. */
function labelsOf(term: string): string[] {
  return term.match(/\.\.\.|[A-Za-z]/g) ?? [];
}

function gradient(c: GradientContext, { inputs, output }: Equation, index: number): Value {
  const own = inputs[index] ?? '';
  const labels = labelsOf(own);
  if (new Set(labels).size !== labels.length)
    return c.unsupported(`operand ${index} of '${c.string('equation', '')}' takes a diagonal`);
  const terms = [output, ...inputs.filter((_, i) => i !== index)];
  const operands = [c.dy, ...c.node.inputs.map((_, i) => c.input(i)).filter((_, i) => i !== index)];
  const present = new Set(terms.flatMap(labelsOf));
  if (labels.some((label) => !present.has(label))) {
    // Labels that only this operand has were summed away: spread over them again.
    terms.push(own);
    operands.push(c.shapes.expandLike(c.number(1), c.input(index)));
  }
  // The ellipsis of the other operands may be wider than this operand's; it is summed afterwards.
  const wide = terms.some((term) => term.includes('...')) && !own.includes('...');
  if (wide) return c.unsupported(`operand ${index} lacks the ellipsis that others have`);
  const result = c.op.Einsum(operands, { equation: `${terms.join(',')}->${own}` });
  return own.includes('...') ? c.shapes.unbroadcast(result, c.input(index)) : result;
}

export const einsums: readonly Gradient[] = [
  defineGradient({ op: 'Einsum' }, (c) => {
    const equation = parse(c.string('equation', ''));
    return equation.inputs.map((_, index) => () => gradient(c, equation, index));
  }),
];
