/**
 * Evaluation in blocks: which inputs of a formula have to be cut, and along which axis, so that the formula run on the
 * pieces gives a piece of its output. That is what lets a weight be folded in the memory of some of its rows.
 *
 * The analysis runs backwards from the output: a block of rows of `w + s·A B` needs the same rows of `w` and of `A` and
 * all of `B`. An operator without an entry, or a value that is needed both cut and whole, means that there are no blocks.
 */
import { intAttribute, intsAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { shapeOf } from '../../src/value-type.js';

/** Input name → axis it is cut along. Inputs that are not named are needed whole by every block. */
export type BlockAxes = ReadonlyMap<string, number>;

/** What a cut of a node's output along `axis` asks of its inputs: an axis each, or null for the whole; undefined: no. */
type Rule = (node: Node, axis: number) => readonly (number | null)[] | undefined;

const sameAxis: Rule = (_node, axis) => [axis];

/** Broadcasting elementwise: an operand is cut along the aligned axis unless it has none there or repeats along it. */
const elementwise: Rule = (node, axis) => {
  const rank = dimsOf(node.output())?.length;
  if (rank === undefined) return undefined;
  const axes: (number | null)[] = [];
  for (const input of node.inputs) {
    const dims = input === null ? undefined : dimsOf(input);
    if (dims === undefined) return undefined;
    const aligned = axis - (rank - dims.length);
    axes.push(aligned < 0 || dims[aligned] === 1 ? null : aligned);
  }
  return axes;
};

const RULES: Readonly<Record<string, Rule>> = {
  ...Object.fromEntries(
    ['Identity', 'Cast', 'Neg', 'Abs', 'Sqrt', 'Exp', 'Tanh', 'Relu', 'Sigmoid'].map((op) => [op, sameAxis]),
  ),
  ...Object.fromEntries(
    ['Add', 'Sub', 'Mul', 'Div', 'Where', 'Pow', 'Max', 'Min'].map((op) => [op, elementwise]),
  ),
  MatMul: (node, axis) => {
    if (node.inputs.some((input) => input === null || dimsOf(input)?.length !== 2)) return undefined;
    return axis === 0 ? [0, null] : [null, 1];
  },
  Transpose: (node, axis) => {
    const from = intsAttribute(node, 'perm')?.[axis];
    return from === undefined ? undefined : [from];
  },
  Concat: (node, axis) => {
    const along = intAttribute(node, 'axis', 0);
    const rank = dimsOf(node.output())?.length ?? 0;
    return (along < 0 ? along + rank : along) === axis ? undefined : node.inputs.map(() => axis);
  },
};

/**
 * Axes to cut the inputs of a formula along for blocks of its first output's axis 0. Every value must have known sizes.
 * Undefined when the formula cannot be evaluated in blocks.
 */
export function blockAxes(formula: Model): BlockAxes | undefined {
  const output = formula.graph.outputs[0]?.value;
  if (output === undefined || (dimsOf(output)?.length ?? 0) === 0) return undefined;
  const demands = new Map<Value, number | null>([[output, 0]]);
  // Nodes are in order of execution, so a node is reached after all readers of its output.
  for (const node of formula.graph.nodesReversed()) {
    const axis = demands.get(node.output());
    if (axis === undefined) continue;
    const wanted = axis === null ? node.inputs.map(() => null) : RULES[node.op]?.(node, axis);
    if (wanted === undefined) return undefined;
    for (const [index, input] of node.inputs.entries()) {
      if (input === null) continue;
      const demand = wanted[index] ?? null;
      const known = demands.get(input);
      if (known !== undefined && known !== demand) return undefined;
      demands.set(input, demand);
    }
  }
  const constants = [...formula.graph.initializers];
  if (constants.some((value) => (demands.get(value) ?? null) !== null)) return undefined;
  const axes = new Map<string, number>();
  for (const input of formula.graph.inputs) {
    const axis = demands.get(input);
    if (typeof axis === 'number' && input.name !== undefined) axes.set(input.name, axis);
  }
  return axes;
}

function dimsOf(value: Value): readonly number[] | undefined {
  const shape = shapeOf(value);
  return shape?.every((dim) => typeof dim === 'number') ? (shape as readonly number[]) : undefined;
}
