/** Stored matrices and vectors of sites, and the slots that replace what an op reads of them. */
import { fail } from '../../../src/errors.js';
import type { Node, Use, Value } from '../../../src/graph.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import { linkOf } from '../links/index.js';
import type { SiteBias, WeightView } from '../site.js';
import {
  consumedLayout,
  consumedVector,
  fromMatrix,
  fromVector,
  storedLayout,
  storedVector,
  toMatrix,
  toVector,
} from '../weight-form.js';
import type { Slot, StoredTensor } from './kind.js';

/** A weight matrix as folds see it. `node` is the site's op, `own` how many columns are the site's. */
export function storedMatrix(weight: WeightView, rows: number, node: Node, own: number): StoredTensor {
  const { value, storage, chain, slice } = weight;
  const columns = slice === undefined ? weight.columns : { start: slice.index, end: slice.index + 1 };
  return {
    value,
    storage,
    ...(columns === undefined ? {} : { columns }),
    ...(storage === 'packed' ? { packed: [rows, own] } : {}),
    reader: chain[0] ?? node,
    read: (op, stored) => toMatrix(op, stored, storedLayout(weight, rows)),
    write: (op, own, stored) => fromMatrix(op, own, stored, storedLayout(weight, rows)),
  };
}

/** A vector as folds see it. */
export function storedVectorOf(vector: SiteBias): StoredTensor {
  const { value, chain, columns, node } = vector;
  return {
    value,
    storage: chain.map((link) => linkOf(link)?.storage).find((kind) => kind !== undefined) ?? 'dense',
    ...(columns === undefined ? {} : { columns }),
    reader: chain[0] ?? node,
    read: (op, stored) => toVector(op, stored, storedVector(vector)),
    write: (op, own, stored) => fromVector(op, own, stored, storedVector(vector)),
  };
}

/** The matrix that the op reads by now: a column range of a packed weight may have been wired before this one. */
export function currentMatrix(op: Ops, weight: WeightView, rows: number, node: Node, path: string): Value {
  if (weight.storage === 'packed')
    fail('E_UNSUPPORTED', {
      message: 'The weight is packed in a layout that only its op understands',
      where: path,
      remedy: 'Choose a method that adds to the output, such as lora',
    });
  return toMatrix(op, node.input(weight.input), consumedLayout(weight, rows));
}

export function currentVector(op: Ops, vector: SiteBias): Value {
  return toVector(op, vector.node.input(vector.input), consumedVector(vector));
}

/** Feeds the site's op, and no other reader of its weight, a new matrix. */
export function matrixSlot(op: Ops, weight: WeightView, rows: number, node: Node): Slot {
  return (matrix) => {
    const from = node.input(weight.input);
    const to = fromMatrix(op, matrix, from, consumedLayout(weight, rows));
    return { at: { before: node }, redirects: [{ from, to, only: at(node, weight.input) }] };
  };
}

export function vectorSlot(op: Ops, vector: SiteBias): Slot {
  const { node, input } = vector;
  return (own) => {
    const from = node.input(input);
    const to = fromVector(op, own, from, consumedVector(vector));
    return { at: { before: node }, redirects: [{ from, to, only: at(node, input) }] };
  };
}

/** One input slot of a node. */
export function at(node: Node, index: number): (use: Use) => boolean {
  return (use) => use.kind === 'node' && use.node === node && use.index === index;
}
