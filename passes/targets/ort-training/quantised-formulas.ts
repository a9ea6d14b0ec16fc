/** Operators on quantised weights that the training API's runtime lacks, written in standard ones. */
import { intAttribute } from '../../../src/attribute.js';
import type { Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { type DType, isFloat } from '../../../src/types.js';
import { dtypeOf, rankOf } from '../../../src/value-type.js';
import type { Formula } from '../../portable/missing.js';
import { bytePacking, type QuantizedMatrix } from '../../quantize/matrix.js';
import { isRefusal, quantizedProduct } from '../../quantize/products.js';
import { payloadOf } from '../../sites/payload.js';

/** Codes [..., n · 8/bits] as bytes of bytes [..., n] that hold 8/bits of them, the first in the low bits. */
function unpacked(b: Builder, bytes: Value, bits: number): Value {
  const { op } = b;
  if (bits === 8) return bytes;
  const shift = (by: number) => b.scalar(by, 'uint8');
  const places = Array.from({ length: 8 / bits }, (_, place) => {
    const left = 8 - bits - place * bits;
    const clipped = left === 0 ? bytes : op.BitShift(bytes, shift(left), { direction: 'LEFT' });
    return op.Unsqueeze(op.BitShift(clipped, shift(8 - bits), { direction: 'RIGHT' }), [-1]);
  });
  const kept = new Array<number>((rankOf(bytes) ?? 1) - 1).fill(0);
  return op.Reshape(op.Concat(places, { axis: -1 }), [...kept, -1]);
}

/** Codes as numbers; the upper half of signed ones stands for negative numbers. */
function numbers(b: Builder, codes: Value, bits: number, signed: boolean, dtype: DType): Value {
  const { op } = b;
  const floats = op.Cast(codes, { to: dtype });
  if (!signed) return floats;
  const half = 2 ** (bits - 1);
  return op.Where(op.Greater(floats, b.scalar(half - 1, dtype)), op.Sub(floats, 2 * half), floats);
}

/** The first `count` of the last axis. */
function head(b: Builder, value: Value, length: number, count: number): Value {
  return length === count ? value : b.op.Slice(value, [0], [count], [-1]);
}

/** Rows of a table [vocabulary, columns] in blocks along its columns; other axes are not covered. */
const gatherBlockQuantized: Formula = (b, node) => {
  const { op } = b;
  const [table, ids, scales] = [node.input(0), node.input(1), node.input(2)];
  const stored = payloadOf(table);
  const packing = stored === undefined ? undefined : bytePacking(stored.dtype);
  const dtype = dtypeOf(scales);
  const [rows, width, ...more] = stored?.dims ?? [];
  const lastAxis = [1, -1].includes(intAttribute(node, 'quantize_axis', 1));
  if (stored === undefined || packing === undefined || dtype === undefined) return undefined;
  if (rows === undefined || width === undefined || more.length > 0) return undefined;
  if (!lastAxis || ![0, -2].includes(intAttribute(node, 'gather_axis', 0))) return undefined;
  // Bytes hold rows of their own; elements of half a byte are packed without regard for rows.
  const ofBytes = stored.dtype === 'uint8';
  const bits = ofBytes ? intAttribute(node, 'bits', 4) : packing.bits;
  const perByte = 8 / bits;
  const columns = ofBytes ? width * perByte : width;
  if (columns % perByte !== 0) return undefined;
  const size = intAttribute(node, 'block_size', 128);
  const blocks = Math.ceil(columns / size);
  const wide = (value: Value) =>
    blocks === 1
      ? value
      : op.Gather(value, b.ints(Array.from({ length: columns }, (_, i) => Math.floor(i / size))), {
          axis: -1,
        });
  const asNumbers = (codes: Value) => numbers(b, codes, bits, packing.signed, dtype);
  const asBytes = (value: Value, dims: readonly number[]) => {
    const tensor = payloadOf(value);
    return ofBytes || tensor === undefined
      ? value
      : b.constant({ dtype: 'uint8', dims, data: tensor.data }, value.hint);
  };
  const bytes = asBytes(table, [rows, columns / perByte]);
  const codes = asNumbers(unpacked(b, op.Gather(bytes, ids, { axis: 0 }), bits));
  const zeroRows = (): Value | undefined => {
    const given = node.inputs[3];
    if (given == null) return undefined;
    const perRow = ofBytes ? Math.ceil(blocks / perByte) * perByte : blocks;
    const count = rows * perRow;
    const whole = unpacked(b, op.Reshape(asBytes(given, [Math.ceil(count / perByte)]), [-1]), bits);
    const flat = head(b, whole, Math.ceil(count / perByte) * perByte, count);
    const zeros = head(b, op.Reshape(flat, [rows, perRow]), perRow, blocks);
    return asNumbers(op.Gather(zeros, ids, { axis: 0 }));
  };
  if (node.inputs[3] != null && payloadOf(node.inputs[3]) === undefined) return undefined;
  const zeros = zeroRows();
  const shifted =
    zeros !== undefined ? op.Sub(codes, wide(zeros)) : ofBytes ? op.Sub(codes, 2 ** (bits - 1)) : codes;
  return op.Mul(shifted, wide(op.Gather(scales, ids, { axis: 0 })));
};

/**
 * x·dequant(W)ᵀ, with floats of W that live as long as the product: scales to which a zero is added that depends on x, so
 * that the runtime does not make the floats once for all.
 */
const matMulNBits: Formula = (b, node) => {
  const { op } = b;
  const product = quantizedProduct(node);
  if (product === undefined || isRefusal(product.weight)) return undefined;
  const { x, weight, outDim } = product;
  const { packing, groups, stride, columns } = weight;
  const element = op.ReduceSum(op.Slice(op.Reshape(x, [-1]), [0], [1], [0]), null, { keepdims: 0 });
  const seal = op.Cast(op.Greater(element, element), { to: 'float32' });
  const scales = op.Add(op.Reshape(op.Cast(weight.scales, { to: 'float32' }), [groups]), seal);
  const codes = op.Reshape(unpacked(b, op.Reshape(weight.codes, [groups, -1]), packing.bits), [groups, -1]);
  const floats = op.DequantizeLinear(codes, scales, integerZeros(b, weight), { axis: 0 });
  const shifted = op.Sub(floats, floatOffset(b, weight, scales) ?? b.scalar(0));
  const rows = head(b, op.Reshape(shifted, [outDim, stride]), stride, columns);
  const w = op.Cast(op.Transpose(rows, { perm: [1, 0] }), { to: dtypeOf(x) ?? 'float32' });
  const y = op.MatMul(x, w);
  return product.bias === undefined ? y : op.Add(y, node.input(product.bias));
};

/** Zero points of all groups as bytes; zeros where they are floats. */
function integerZeros(b: Builder, { zeroPoints, groups, defaultZero, rows }: QuantizedMatrix): Value {
  const { op } = b;
  if (zeroPoints === undefined) return op.Expand(b.scalar(defaultZero, 'uint8'), [groups]);
  const { value, packing, stride, perRow } = zeroPoints;
  if (packing === undefined) return op.Expand(b.scalar(0, 'uint8'), [groups]);
  const all = unpacked(b, op.Reshape(value, [rows, -1]), packing.bits);
  return op.Reshape(head(b, all, stride, perRow), [groups]);
}

/** Zero points that are floats, in units of the weight: [groups, 1]. */
function floatOffset(b: Builder, { zeroPoints, groups }: QuantizedMatrix, scales: Value): Value | undefined {
  if (zeroPoints === undefined || !isFloat(dtypeOf(zeroPoints.value) ?? 'uint8')) return undefined;
  const zeros = b.op.Cast(b.op.Reshape(zeroPoints.value, [groups, 1]), { to: 'float32' });
  return b.op.Mul(zeros, b.op.Reshape(scales, [groups, 1]));
}

/** By operator of com.microsoft. */
export const QUANTISED_FORMULAS: Readonly<Record<string, Formula>> = {
  GatherBlockQuantized: gatherBlockQuantized,
  MatMulNBits: matMulNBits,
};
