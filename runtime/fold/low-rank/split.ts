/**
 * Formulas that add products of matrices to a weight, `w ± Σ sᵢ Pᵢ Qᵢ`, turned around or not: what LoRA and its kin come
 * to. Whatever their factors are made of is small, and the weight itself needs a single pass (see `LowRankKernel`).
 */
import { pruneGraph } from '../../../passes/targets/prune.js';
import { cloneModel } from '../../../src/clone.js';
import type { Node, Value } from '../../../src/graph.js';
import { inferModel } from '../../../src/infer/index.js';
import type { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';
import { countOf } from '../../../src/types.js';
import { rankOf } from '../../../src/value-type.js';

/** Outputs of the formula of the factors. No parameter of a method is called so. */
export const LEFT = 'left factor';
export const RIGHT = 'right factor';

interface Product {
  readonly left: Value;
  readonly right: Value;
  readonly path: Path;
}

/** What happens to a term of the sum on its way to the output. */
interface Path {
  readonly turned: boolean;
  readonly negative: boolean;
  /** Constants of one element that multiply it. */
  readonly scales: readonly Value[];
}

/**
 * The formula of the factors alone: `LEFT` [rank, rows] and `RIGHT` [rank, columns], whose product `LEFTᵀ RIGHT` is what
 * the formula adds to its input `w`.
 * @param formula of a matrix
 * @returns undefined for formulas of another form
 */
export function factorsOf(formula: Model): Model | undefined {
  const { model } = cloneModel(formula);
  const { graph } = model;
  // Formulas of blocks come without the types of what they compute.
  inferModel(model);
  const [folded] = graph.outputs;
  const base = graph.inputs.find(({ name }) => name === 'w');
  if (folded === undefined || base === undefined) return undefined;
  const products: Product[] = [];
  const bases: boolean[] = [];
  const path = { turned: false, negative: false, scales: [] };
  if (!collect(folded.value, path, base, products, bases)) return undefined;
  // The weight itself, once and as it is stored.
  if (bases.length !== 1 || bases[0] === true || products.length === 0) return undefined;
  const builder = new Builder(model);
  const { op } = builder;
  const turn = (value: Value): Value => op.Transpose(value, { perm: [1, 0] });
  const lefts = products.map(({ left, right, path }) => (path.turned ? right : turn(left)));
  const rights = products.map(({ left, right, path }) => {
    const factor = path.turned ? turn(left) : right;
    return path.scales.reduce(
      (scaled, scale) => op.Mul(scaled, scale),
      path.negative ? op.Neg(factor) : factor,
    );
  });
  const stacked = (parts: readonly Value[]): Value =>
    parts.length === 1 ? op.Identity(parts[0] as Value) : op.Concat(parts, { axis: 0 });
  const outputs = { [LEFT]: stacked(lefts), [RIGHT]: stacked(rights) };
  for (const value of builder.initializers) graph.addInitializer(value);
  for (const node of builder.nodes) graph.append(node);
  for (const output of graph.outputs.splice(0)) output.release();
  for (const [name, value] of Object.entries(outputs)) graph.addOutput(name, value);
  pruneGraph(graph);
  // Factors that depend on the weight (DoRA's norms) would have to be computed of all of it first.
  return graph.inputs.includes(base) ? undefined : model;
}

/** Takes a sum apart. `bases` says for each occurrence of the weight whether it is turned around there. False for other forms. */
function collect(value: Value, path: Path, base: Value, products: Product[], bases: boolean[]): boolean {
  if (value === base) {
    bases.push(path.turned);
    return path.scales.length === 0 && !path.negative;
  }
  const node = value.producer;
  const [a, b] = node?.inputs ?? [];
  if (node === undefined || node.domain !== '' || !a) return false;
  const into = (input: Value, next: Path): boolean => collect(input, next, base, products, bases);
  switch (node.op) {
    case 'Identity':
      return into(a, path);
    case 'Add':
      return b != null && into(a, path) && into(b, path);
    case 'Sub':
      return b != null && into(a, path) && into(b, { ...path, negative: !path.negative });
    case 'Transpose':
      return turnsMatrix(node) && into(a, { ...path, turned: !path.turned });
    case 'Mul': {
      if (!b) return false;
      const [scale, rest] = isScalar(a) ? [a, b] : [b, a];
      return isScalar(scale) && into(rest, { ...path, scales: [...path.scales, scale] });
    }
    case 'MatMul':
      if (!b || rankOf(a) !== 2 || rankOf(b) !== 2) return false;
      products.push({ left: a, right: b, path });
      return true;
    default:
      return false;
  }
}

/** Whether a Transpose turns a matrix around. */
export function turnsMatrix(node: Node): boolean {
  const perm = node.attributes.get('perm');
  return perm === undefined || (perm.type === 'ints' && perm.value.map(Number).join() === '1,0');
}

function isScalar({ tensor }: Value): boolean {
  return tensor !== undefined && tensor.dims.length <= 2 && countOf(tensor.dims) === 1;
}
