/**
 * dY·dequant(W)ᵀ for weights in blocks, from the packed bytes. The codes that share a byte are taken out one position at
 * a time: all even columns of W, then all odd ones, so that half (a quarter, for 2 bits) of a weight is floats at a time
 * and nothing of the weight's size is ever interleaved; the columns of dX are, which are few.
 */
import type { Value } from '../../src/graph.js';
import type { QuantizedMatrix } from '../quantize/matrix.js';
import type { GradientContext } from './context.js';
import { sealOf } from './seal.js';

/** [rows of dY, in]: codes [out, in] as they are stored, `dy` [..., out]. */
export function blockProduct(c: GradientContext, weight: QuantizedMatrix): Value {
  const { op, shapes } = c;
  const { packing, rows, columns, stride, groups } = weight;
  const perByte = 8 / packing.bits;
  const size = (rows * stride) / groups;
  if (!Number.isInteger(size) || size % perByte !== 0 || stride % perByte !== 0)
    return c.unsupported('its blocks do not fill the weight evenly');
  const alpha = c.takeScale();
  const dy = shapes.flat2d(c.dy);
  const seal = sealOf(c, c.dtype());
  const dequantize = weight.table === undefined ? affine(c, weight, seal) : looked(c, weight, seal);
  const parts = Array.from({ length: perByte }, (_, place) => {
    const codes = partOf(c, weight, place, seal);
    // One row per block, so that scales are per row.
    const blocks = op.Reshape(codes, [groups, size / perByte]);
    const part = op.Reshape(dequantize(blocks), [rows, stride / perByte]);
    return op.Gemm(dy, part, null, { alpha });
  });
  const [only] = parts;
  const last = (part: Value) => op.Unsqueeze(part, [-1]);
  const whole =
    perByte === 1 && only !== undefined
      ? only
      : op.Reshape(op.Concat(parts.map(last), { axis: -1 }), [-1, stride]);
  return stride === columns ? whole : op.Slice(whole, [0], [columns], [1]);
}

/** The codes at one position of every byte, as bytes: bits above are shifted out, then those below. */
function partOf(c: GradientContext, { packing, codes }: QuantizedMatrix, place: number, seal: Value): Value {
  const { op } = c;
  const { bits, highFirst } = packing;
  const left = bits * (highFirst ? place : 8 / bits - 1 - place);
  const sealed = (by: number) => op.Cast(op.Add(c.b.scalar(by, c.dtype()), seal), { to: 'uint8' });
  const clipped = left === 0 ? codes : op.BitShift(codes, sealed(left), { direction: 'LEFT' });
  return op.BitShift(clipped, left === 0 ? sealed(8 - bits) : 8 - bits, { direction: 'RIGHT' });
}

/** (code − zero point)·scale of [groups, size] codes. */
function affine(c: GradientContext, weight: QuantizedMatrix, seal: Value): (blocks: Value) => Value {
  const { op } = c;
  const { groups, zeroPoints, defaultZero } = weight;
  const scales = op.Reshape(weight.scales, [groups]);
  const sealed = op.Add(scales, seal);
  if (zeroPoints !== undefined && zeroPoints.packing === undefined) {
    const offset = op.Mul(op.Reshape(zeroPoints.value, [groups, 1]), op.Reshape(scales, [groups, 1]));
    return (blocks) => op.Sub(op.DequantizeLinear(blocks, sealed, null, { axis: 0 }), offset);
  }
  const zeros =
    zeroPoints === undefined
      ? op.Expand(c.b.scalar(defaultZero, 'uint8'), [groups])
      : unpackedZeros(c, weight, zeroPoints);
  return (blocks) => op.DequantizeLinear(blocks, sealed, zeros, { axis: 0 });
}

/** Zero points of all groups as bytes. */
function unpackedZeros(
  c: GradientContext,
  { groups }: QuantizedMatrix,
  { value, packing, stride, perRow }: NonNullable<QuantizedMatrix['zeroPoints']>,
): Value {
  const { op } = c;
  const bits = packing?.bits ?? 8;
  if (bits === 8) return op.Reshape(value, [groups]);
  const bytes = op.Reshape(value, [-1, 1]);
  const places = Array.from({ length: 8 / bits }, (_, place) => {
    const clipped = op.BitShift(bytes, 8 - bits - place * bits, { direction: 'LEFT' });
    return op.BitShift(clipped, 8 - bits, { direction: 'RIGHT' });
  });
  const rows = op.Reshape(op.Concat(places, { axis: 1 }), [-1, stride]);
  const kept = stride === perRow ? rows : op.Slice(rows, [0], [perRow], [1]);
  return op.Reshape(kept, [groups]);
}

/** table[code]·scale of [groups, size] codes. */
function looked(c: GradientContext, weight: QuantizedMatrix, seal: Value): (blocks: Value) => Value {
  const { op, b } = c;
  const dtype = c.dtype();
  const entries = (weight.table ?? []).map((value) => op.Reshape(b.scalar(value, dtype), [1]));
  const table = op.Add(op.Concat(entries, { axis: 0 }), seal);
  const scales = op.Reshape(weight.scales, [weight.groups, 1]);
  return (blocks) => op.Mul(op.Gather(table, op.Cast(blocks, { to: 'int32' }), { axis: 0 }), scales);
}
