/** Reads numbers out of small constants. */
import type { Value } from '../../src/graph.js';
import { constantOf } from '../../src/infer/index.js';
import { elementsOf, type Tensor } from '../../src/tensor.js';

/** The number of a constant with exactly one element; undefined for everything else. */
export function scalarOf(value: Value | null | undefined): number | undefined {
  if (value === null || value === undefined) return undefined;
  const tensor = constantOf(value);
  if (tensor === undefined || elementsOf(tensor) !== 1) return undefined;
  return numbersOf(tensor)?.[0];
}

type Reader = (view: DataView, offset: number) => number;

const READERS: Partial<Record<Tensor['dtype'], readonly [bytes: number, read: Reader]>> = {
  float32: [4, (view, at) => view.getFloat32(at, true)],
  float64: [8, (view, at) => view.getFloat64(at, true)],
  float16: [2, (view, at) => halfToNumber(view.getUint16(at, true))],
  bfloat16: [2, (view, at) => bfloatToNumber(view.getUint16(at, true))],
  int32: [4, (view, at) => view.getInt32(at, true)],
  int64: [8, (view, at) => Number(view.getBigInt64(at, true))],
  int8: [1, (view, at) => view.getInt8(at)],
  uint8: [1, (view, at) => view.getUint8(at)],
  bool: [1, (view, at) => view.getUint8(at)],
};

/** The elements of a small inline tensor as numbers; undefined when the payload is not at hand. */
export function numbersOf(tensor: Tensor): number[] | undefined {
  const reader = READERS[tensor.dtype];
  const bytes = tensor.data.inline;
  if (reader === undefined || bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [size, read] = reader;
  return Array.from({ length: elementsOf(tensor) }, (_, i) => read(view, i * size));
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function bfloatToNumber(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, bits << 16);
  return view.getFloat32(0);
}
