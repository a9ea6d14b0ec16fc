/**
 * Experts whose weights are one tensor [experts, ·, ·]: each slice is a linear of its own. Their inputs and outputs exist
 * for all experts together, or for the selected ones, so methods act on the weights.
 */
import { intsAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import { isFloat } from '../../src/types.js';
import { rankOf } from '../../src/value-type.js';
import type { LinearDraft } from './draft.js';
import { graphOf } from './linear.js';
import { traceConstant } from './weight.js';

/** `transposed`: whether the op sees slices as [out, in]. */
export function expertDrafts(node: Node, input: number, x: Value, transposed: boolean): LinearDraft[] {
  const consumed = node.inputs[input];
  const constant = consumed == null ? undefined : traceConstant(consumed);
  if (consumed == null || constant === undefined || !isFloat(constant.dtype)) return [];
  const [count = 0, rows = 0, columns = 0] = constant.dims;
  if (constant.dims.length !== 3 || count < 2 || rows < 2 || columns < 2) return [];
  // Slices stay slices: nothing between but copies and transpositions of the last two axes.
  const turns = constant.chain.map(turnsSlices);
  if (turns.includes(undefined) || constant.payload.dims[0] !== count) return [];
  const turned = turns.filter((turn) => turn === true).length % 2 === 1;
  return Array.from({ length: count }, (_, index) => ({
    kind: 'linear' as const,
    node,
    graph: graphOf(node),
    dtype: constant.dtype,
    x,
    xAxis: -1,
    y: undefined,
    yAxis: -1,
    weight: {
      value: constant.value,
      transposed: transposed !== turned,
      slice: { index, count },
      scale: 1,
      consumed,
      consumedTransposed: transposed,
      input,
      chain: constant.chain,
      storage: constant.storage,
    },
    inDim: transposed ? columns : rows,
    outDim: transposed ? rows : columns,
  }));
}

/** The experts that a gather of slices selects for a product. */
export function selectedExperts(node: Node): LinearDraft[] {
  if (rankOf(node.input(0)) !== 3) return [];
  const use = productOf(node.output(0), false);
  return use === undefined ? [] : expertDrafts(node, 0, use.x, use.transposed);
}

interface ProductUse {
  readonly x: Value;
  /** Whether the selected slices are [out, in]. */
  readonly transposed: boolean;
}

/** The one product that reads selected weights, behind copies and transpositions. */
function productOf(weights: Value, turned: boolean, depth = 6): ProductUse | undefined {
  const [use] = weights.uses;
  if (weights.uses.size !== 1 || use?.kind !== 'node' || depth === 0) return undefined;
  const { node, index } = use;
  if (node.qualifiedOp === 'MatMul')
    return { x: node.input(1 - index), transposed: (index === 0) !== turned };
  const turn = turnsSlices(node);
  return turn === undefined || index !== 0
    ? undefined
    : productOf(node.output(0), turned !== turn, depth - 1);
}

/** Whether a node swaps the last two axes (true) or copies (false); undefined for anything else. */
function turnsSlices(node: Node): boolean | undefined {
  if (node.qualifiedOp === 'Cast' || node.qualifiedOp === 'Identity') return false;
  if (node.qualifiedOp !== 'Transpose') return undefined;
  const perm = intsAttribute(node, 'perm');
  const last = (perm?.length ?? 0) - 1;
  const swapped = perm?.every((from, to) => from === (to === last ? last - 1 : to === last - 1 ? last : to));
  return swapped === true ? true : undefined;
}
