/**
 * From the value an op reads back to the stored payload. A chain of links is followed as long as the elements stay a
 * matrix in row-major order, possibly transposed, so that `transposed` and the dims of the payload say everything.
 */
import type { Node, Value } from '../../src/graph.js';
import type { Tensor } from '../../src/tensor.js';
import type { DType } from '../../src/types.js';
import { type Link, linkOf } from './links/index.js';
import { payloadOf } from './payload.js';
import type { WeightStorage } from './site.js';

/** A value that is a constant, seen through links. */
export interface Constant {
  readonly value: Value;
  readonly payload: Tensor;
  readonly chain: readonly Node[];
  /** Dims and element type of the value the chain ends in. */
  readonly dims: readonly number[];
  readonly dtype: DType;
  readonly storage: WeightStorage;
}

/** The constant behind `end`; undefined when it is computed from activations or by ops that are no links. */
export function traceConstant(end: Value): Constant | undefined {
  const chain: Node[] = [];
  const links: Link[] = [];
  let value = end;
  let payload = payloadOf(value);
  while (payload === undefined) {
    const node = value.producer;
    const link = node === undefined ? undefined : linkOf(node);
    const input = node?.inputs[0];
    if (node === undefined || link === undefined || input === null || input === undefined) return undefined;
    chain.unshift(node);
    links.unshift(link);
    value = input;
    payload = payloadOf(value);
  }
  let dims: readonly number[] | undefined = payload.dims;
  let dtype: DType | undefined = payload.dtype;
  let storage: WeightStorage = 'dense';
  for (const [i, link] of links.entries()) {
    const node = chain[i];
    if (node === undefined || dims === undefined) return undefined;
    dims = link.dims(node, dims);
    if (link.dtype !== undefined) dtype = link.dtype(node);
    storage = link.storage ?? storage;
  }
  return dims === undefined || dtype === undefined
    ? undefined
    : { value, payload, chain, dims, dtype, storage };
}

/**
 * Whether the payload is the transpose of the [rows, ·] matrix that the end of the chain is; undefined when the
 * payload is neither that matrix nor its transpose.
 */
export function payloadTransposed(constant: Constant, rows: number): boolean | undefined {
  const dimsBefore: (readonly number[])[] = [];
  let dims: readonly number[] = constant.payload.dims;
  for (const node of constant.chain) {
    dimsBefore.push(dims);
    dims = linkOf(node)?.dims(node, dims) ?? [];
  }
  let transposed = false;
  let leading = rows;
  for (let i = constant.chain.length - 1; i >= 0; i--) {
    const node = constant.chain[i];
    const input = dimsBefore[i];
    if (node === undefined || input === undefined) return undefined;
    const perm = linkOf(node)?.permutation?.(node, input.length);
    if (perm === undefined) continue;
    const split = rotation(perm, input);
    if (split === undefined) return undefined;
    if (split === 0) continue;
    // Output = [input axes from `split` on, input axes before it]: a matrix transpose if the cut is the matrix's own.
    const order = input.map((_, axis) => axis).filter((axis) => input[axis] !== 1);
    const tail = order.slice(split).reduce((all, axis) => all * (input[axis] ?? 1), 1);
    const head = order.slice(0, split).reduce((all, axis) => all * (input[axis] ?? 1), 1);
    if (tail !== leading) return undefined;
    leading = head;
    transposed = !transposed;
  }
  return transposed;
}

/** By how many axes a permutation rotates the axes of size > 1; undefined when it is no rotation. */
function rotation(perm: readonly number[], dims: readonly number[]): number | undefined {
  const real = dims.map((_, axis) => axis).filter((axis) => dims[axis] !== 1);
  const permuted = perm.filter((axis) => dims[axis] !== 1);
  const first = permuted[0];
  const shift = first === undefined ? 0 : real.indexOf(first);
  for (const [i, axis] of permuted.entries()) if (real[(i + shift) % real.length] !== axis) return undefined;
  return shift;
}
