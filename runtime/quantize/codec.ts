/** From the packed bytes of a quantised matrix to numbers and back. */
import type { CodePacking, QuantizedMatrix } from '../../passes/quantize/matrix.js';
import { payloadOf } from '../../passes/sites/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { byteSize, countOf, type DType } from '../../src/types.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';

/** The tensors of a matrix as numbers; codes stay packed. */
export interface LoadedMatrix {
  readonly codes: Uint8Array;
  /** One per group. */
  readonly scales: Float32Array;
  /** One per group. */
  readonly zeros: Float32Array;
}

/** What a matrix becomes when it is stored, as the payloads of its tensors. */
export interface EncodedMatrix {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
  readonly zeroPoints: Uint8Array | undefined;
  /** What the stored tensors stand for, [rows, columns]. */
  readonly values: Float32Array;
  /** Share of codes that are those of the base; 0 without one. */
  readonly unchanged: number;
}

function load(value: Value): HostTensor {
  const tensor =
    payloadOf(value) ??
    fail('E_INVALID_GRAPH', { message: 'A quantised weight holds no numbers', where: value.label });
  const { dtype, dims, data } = tensor;
  return { dtype, dims, data: data.inline ?? data.read(0, data.byteLength) };
}

/** The code at place `index`, of packed codes. */
function unpack(bytes: Uint8Array, index: number, { bits, signed, highFirst }: CodePacking): number {
  if (bits === 8) {
    const byte = bytes[index] ?? 0;
    return signed && byte > 127 ? byte - 256 : byte;
  }
  const perByte = 8 / bits;
  const place = index % perByte;
  const shift = bits * (highFirst ? perByte - 1 - place : place);
  const code = ((bytes[(index - place) / perByte] ?? 0) >> shift) & (2 ** bits - 1);
  return signed && code >= 2 ** (bits - 1) ? code - 2 ** bits : code;
}

function pack(bytes: Uint8Array, index: number, code: number, { bits, highFirst }: CodePacking): void {
  if (bits === 8) {
    bytes[index] = code;
    return;
  }
  const perByte = 8 / bits;
  const place = index % perByte;
  const shift = bits * (highFirst ? perByte - 1 - place : place);
  const at = (index - place) / perByte;
  const mask = 2 ** bits - 1;
  bytes[at] = ((bytes[at] ?? 0) & ~(mask << shift)) | ((code & mask) << shift);
}

/** Reads the tensors of a matrix. @throws E_INVALID_DATA when they are shorter than the matrix. */
export function loadMatrix(matrix: QuantizedMatrix): LoadedMatrix {
  const codes = load(matrix.codes).data;
  const scales = Float32Array.from(numbersOf(load(matrix.scales)));
  const needed = Math.ceil((((matrix.rows - 1) * matrix.stride + matrix.columns) * matrix.packing.bits) / 8);
  const shared = scales.length === 1;
  if (codes.length < needed || (scales.length < matrix.groups && !shared))
    fail('E_INVALID_DATA', {
      message: `The quantised weight is too short: ${codes.length} bytes of codes and ${scales.length} scales for ${matrix.rows} × ${matrix.columns} in ${matrix.groups} groups`,
      where: matrix.codes.label,
    });
  const perGroup = shared ? new Float32Array(matrix.groups).fill(scales[0] ?? 0) : scales;
  return { codes, scales: perGroup, zeros: zerosOf(matrix) };
}

/** Whether all groups have one element in common where they could have one each. */
function isShared(value: Value | undefined, groups: number): boolean {
  return groups > 1 && value !== undefined && countOf(payloadOf(value)?.dims ?? []) === 1;
}

function zerosOf({ zeroPoints, groups, defaultZero }: QuantizedMatrix): Float32Array {
  const zeros = new Float32Array(groups).fill(defaultZero);
  if (zeroPoints === undefined) return zeros;
  const { value, packing, perRow, stride } = zeroPoints;
  const tensor = load(value);
  const floats = packing === undefined ? numbersOf(tensor) : undefined;
  const single = isShared(value, groups);
  for (let group = 0; group < groups; group++) {
    const at = single ? 0 : Math.floor(group / perRow) * stride + (group % perRow);
    zeros[group] = packing === undefined ? (floats?.[at] ?? defaultZero) : unpack(tensor.data, at, packing);
  }
  return zeros;
}

/** The numbers that a stored matrix stands for, [rows, columns], or [columns, rows] when `flipped`. */
export function decode(
  matrix: QuantizedMatrix,
  { codes, scales, zeros }: LoadedMatrix,
  flipped = false,
): Float32Array {
  const { rows, columns, stride, packing, table } = matrix;
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const group = matrix.group(row, column);
      const code = unpack(codes, row * stride + column, packing);
      const base = table === undefined ? code - (zeros[group] ?? 0) : (table[code] ?? 0);
      values[flipped ? column * rows + row : row * columns + column] = base * (scales[group] ?? 0);
    }
  return values;
}

/** Range of codes. */
function codeRange({ packing: { bits, signed } }: QuantizedMatrix): readonly [low: number, high: number] {
  return signed ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
}

/** Nearest code of a number divided by its scale. */
type Nearest = (value: number, zero: number) => number;

function nearestCode(matrix: QuantizedMatrix): Nearest {
  const { table } = matrix;
  const [low, high] = codeRange(matrix);
  if (table === undefined) return (value, zero) => Math.min(high, Math.max(low, roundEven(value + zero)));
  const order = [...table.keys()].sort((a, b) => (table[a] ?? 0) - (table[b] ?? 0));
  const middles = order.slice(1).map((code, i) => ((table[code] ?? 0) + (table[order[i] ?? 0] ?? 0)) / 2);
  return (value) => {
    let at = 0;
    while (at < middles.length && value > (middles[at] ?? 0)) at++;
    return order[at] ?? 0;
  };
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The zero point of all groups where it does not follow their numbers: it is 0, or one for all. */
function fixedZero(matrix: QuantizedMatrix, base: LoadedMatrix | undefined): number | undefined {
  const { zeroPoints, packing, groups, defaultZero } = matrix;
  if (zeroPoints === undefined) return defaultZero;
  if (isShared(zeroPoints.value, groups)) return base?.zeros[0] ?? defaultZero;
  return packing.signed ? defaultZero : undefined;
}

/** Whether the zero points stay what they are when other numbers are stored. */
export function keepsZeros(matrix: QuantizedMatrix): boolean {
  const { zeroPoints, groups, packing, defaultZero } = matrix;
  if (zeroPoints === undefined || isShared(zeroPoints.value, groups)) return true;
  return packing.signed && zerosOf(matrix).every((zero) => zero === defaultZero);
}

/** The scale that codes around a zero point reach from `min` to `max` with; a side without codes is clipped. */
function reaching(min: number, max: number, zero: number, [low, high]: readonly [number, number]): number {
  const up = high > zero ? max / (high - zero) : 0;
  const down = zero > low ? -min / (zero - low) : 0;
  return Math.max(up, down);
}

/** Scale and zero point of every group for the extent of its numbers. */
function spanning(
  matrix: QuantizedMatrix,
  values: Float32Array,
  scaleDtype: DType,
  base: LoadedMatrix | undefined,
): Pick<LoadedMatrix, 'scales' | 'zeros'> {
  const { rows, columns, groups, table, zeroPoints, defaultZero } = matrix;
  const least = new Float32Array(groups);
  const most = new Float32Array(groups);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const group = matrix.group(row, column);
      const value = values[row * columns + column] ?? 0;
      if (value < (least[group] ?? 0)) least[group] = value;
      if (value > (most[group] ?? 0)) most[group] = value;
    }
  const range = codeRange(matrix);
  const [low, high] = range;
  const fixed = fixedZero(matrix, base);
  // The longer side of the codes goes to the number furthest from 0: the scale has its sign.
  const signed = zeroPoints === undefined && defaultZero !== 0;
  const scales = new Float32Array(groups);
  const zeros = new Float32Array(groups).fill(fixed ?? defaultZero);
  for (let group = 0; group < groups; group++) {
    const [min, max] = [least[group] ?? 0, most[group] ?? 0];
    if (table !== undefined) scales[group] = Math.max(-min, max);
    else if (signed && max !== -min) scales[group] = (max > -min ? -max : -min) / (defaultZero - low);
    else scales[group] = fixed === undefined ? (max - min) / (high - low) : reaching(min, max, fixed, range);
  }
  if (isShared(matrix.scales, groups)) scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));
  const rounded = Float32Array.from(numbersOf(tensorOfNumbers(scaleDtype, [groups], scales)));
  if (fixed === undefined && table === undefined)
    for (let group = 0; group < groups; group++) {
      const scale = rounded[group] ?? 0;
      const exact = scale === 0 ? defaultZero : low - (least[group] ?? 0) / scale;
      zeros[group] =
        zeroPoints?.packing === undefined ? exact : Math.min(high, Math.max(low, roundEven(exact)));
    }
  return { scales: rounded, zeros };
}

/** Squared error of every group under given scales and zero points. */
function errors(
  matrix: QuantizedMatrix,
  values: Float32Array,
  { scales, zeros }: Pick<LoadedMatrix, 'scales' | 'zeros'>,
  nearest: Nearest,
): Float64Array {
  const { rows, columns, table } = matrix;
  const sums = new Float64Array(matrix.groups);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const group = matrix.group(row, column);
      const value = values[row * columns + column] ?? 0;
      const scale = scales[group] ?? 0;
      const zero = zeros[group] ?? 0;
      const code = scale === 0 ? zero : nearest(value / scale, zero);
      const stored = scale === 0 ? 0 : (table === undefined ? code - zero : (table[code] ?? 0)) * scale;
      sums[group] = (sums[group] ?? 0) + (stored - value) ** 2;
    }
  return sums;
}

/**
 * The nearest stored form of `values` [rows, columns]. Every group gets the scale that spans its numbers, or keeps that
 * of `base` where it loses less.
 */
export function encode(matrix: QuantizedMatrix, values: Float32Array, base?: LoadedMatrix): EncodedMatrix {
  const { rows, columns, stride, packing, groups, table, zeroPoints, defaultZero } = matrix;
  const scalePayload = payloadOf(matrix.scales);
  const scaleDtype = scalePayload?.dtype ?? 'float32';
  const nearest = nearestCode(matrix);
  const { scales, zeros } = spanning(matrix, values, scaleDtype, base);
  const oneScale = isShared(matrix.scales, groups);
  if (base !== undefined) {
    const fitted = errors(matrix, values, { scales, zeros }, nearest);
    const kept = errors(matrix, values, base, nearest);
    // With one scale for all, all of them keep it or none does.
    if (oneScale) for (const sums of [fitted, kept]) sums.fill(sums.reduce((a, b) => a + b, 0));
    for (let group = 0; group < groups; group++)
      if ((kept[group] ?? 0) <= (fitted[group] ?? 0)) {
        scales[group] = base.scales[group] ?? 0;
        zeros[group] = base.zeros[group] ?? 0;
      }
  }
  const codes = base === undefined ? new Uint8Array(codeBytes(matrix)) : base.codes.slice();
  const stored = new Float32Array(values.length);
  let unchanged = 0;
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < stride; column++) {
      const index = row * stride + column;
      // What pads the last block stands for 0.
      const padding = column >= columns;
      if (padding && base !== undefined) continue;
      const group = matrix.group(row, column);
      const scale = scales[group] ?? 0;
      const zero = zeros[group] ?? defaultZero;
      const value = padding ? 0 : (values[row * columns + column] ?? 0);
      const code =
        scale === 0 && table === undefined ? roundEven(zero) : nearest(scale === 0 ? 0 : value / scale, zero);
      if (!padding) {
        if (base !== undefined && unpack(base.codes, index, packing) === code) unchanged++;
        stored[row * columns + column] = (table === undefined ? code - zero : (table[code] ?? 0)) * scale;
      }
      pack(codes, index, code, packing);
    }
  return {
    codes,
    scales: tensorOfNumbers(scaleDtype, [groups], scales).data.subarray(
      0,
      byteSize(scaleDtype, oneScale ? 1 : groups),
    ),
    zeroPoints: zeroPoints === undefined ? undefined : encodeZeros(matrix, zeros),
    values: stored,
    unchanged: base === undefined ? 0 : unchanged / (rows * columns),
  };
}

/** Bytes of the packed codes. */
export function codeBytes({ rows, stride, packing }: QuantizedMatrix): number {
  return Math.ceil((rows * stride * packing.bits) / 8);
}

function encodeZeros({ zeroPoints, groups }: QuantizedMatrix, zeros: Float32Array): Uint8Array {
  const { value, packing, perRow, stride } = zeroPoints as NonNullable<QuantizedMatrix['zeroPoints']>;
  const payload = payloadOf(value);
  const dims = payload?.dims ?? [];
  if (packing === undefined) return tensorOfNumbers(payload?.dtype ?? 'float32', [groups], zeros).data;
  if (countOf(dims) === 1) {
    const bytes = new Uint8Array(1);
    pack(bytes, 0, zeros[0] ?? 0, packing);
    return bytes;
  }
  const bytes = new Uint8Array(Math.ceil(((groups / perRow) * stride * packing.bits) / 8));
  for (let group = 0; group < groups; group++)
    pack(bytes, Math.floor(group / perRow) * stride + (group % perRow), zeros[group] ?? 0, packing);
  return bytes;
}
