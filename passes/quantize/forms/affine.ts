/** Codes in a tensor of their own dims, with a scale per tensor, per entry of an axis, or per block along an axis. */
import type { Value } from '../../../src/graph.js';
import { elementsOf } from '../../../src/tensor.js';
import { payloadOf } from '../../sites/payload.js';
import { bytePacking, type QuantizedMatrix, type Refusal, type ZeroPoints } from '../matrix.js';

export interface AffineParts {
  readonly codes: Value;
  readonly scales: Value;
  readonly zeroPoint: Value | null | undefined;
  readonly axis: number;
  /** 0: one scale per entry of the axis. */
  readonly blockSize: number;
}

/** Undefined when the codes or scales are no constants, or the tensor is no matrix. Axes of size 1 are dropped. */
export function affineMatrix(parts: AffineParts): QuantizedMatrix | Refusal | undefined {
  const codes = payloadOf(parts.codes);
  const scales = payloadOf(parts.scales);
  if (codes === undefined || scales === undefined) return undefined;
  const packing = bytePacking(codes.dtype);
  if (packing === undefined)
    return {
      message: `The weight is stored as ${codes.dtype}, which is not read here`,
      remedy: 'Quantise the model to integers of 2, 4 or 8 bits',
    };
  const axes = codes.dims.map((_, axis) => axis).filter((axis) => codes.dims[axis] !== 1);
  if (axes.length > 2) return undefined;
  const real = axes.map((axis) => codes.dims[axis] ?? 1);
  const columns = real.at(-1) ?? 1;
  const rows = real.length === 2 ? (real[0] ?? 1) : 1;
  const zeros = parts.zeroPoint == null ? undefined : payloadOf(parts.zeroPoint);
  if (parts.zeroPoint != null && zeros === undefined) return undefined;
  const scaleCount = elementsOf(scales);
  const zeroCount = zeros === undefined ? 1 : elementsOf(zeros);
  // One scale or one zero point goes with all groups of the other.
  const count = Math.max(scaleCount, zeroCount);
  if (![1, count].includes(scaleCount) || ![1, count].includes(zeroCount))
    return {
      message: `The weight has ${scaleCount} scales and ${zeroCount} zero points`,
      remedy: 'Quantise the model with as many zero points as scales',
    };
  const given = parts.axis < 0 ? parts.axis + codes.dims.length : parts.axis;
  // Axes of size 1 in front of the matrix do not count; a vector is one row.
  const alongRows = real.length === 2 && given === axes[0];
  const size = parts.blockSize;
  const whole = {
    rows,
    columns,
    transposed: false,
    packing,
    stride: columns,
    codes: parts.codes,
    scales: parts.scales,
    groups: count,
    defaultZero: 0,
    ...zeroPointsOf(parts.zeroPoint, count),
  };
  const bits = `${packing.bits} bits`;
  if (count === 1) return { ...whole, label: `${bits} per tensor`, group: () => 0 };
  if (size === 0)
    return {
      ...whole,
      label: `${bits} per channel`,
      group: alongRows ? (row) => row : (_row, column) => column,
    };
  const label = `${bits} in blocks of ${size}`;
  const perRow = Math.ceil(columns / size);
  // Along an axis of size 1 every number is a block of its own.
  if (!axes.includes(given)) return { ...whole, label, group: (row, column) => row * columns + column };
  return alongRows
    ? { ...whole, label, group: (row, column) => Math.floor(row / size) * columns + column }
    : { ...whole, label, group: (row, column) => row * perRow + Math.floor(column / size) };
}

function zeroPointsOf(value: Value | null | undefined, count: number): { zeroPoints?: ZeroPoints } {
  const payload = value == null ? undefined : payloadOf(value);
  const packing = payload === undefined ? undefined : bytePacking(payload.dtype);
  return value == null || packing === undefined
    ? {}
    : { zeroPoints: { value, packing, perRow: count, stride: count } };
}
