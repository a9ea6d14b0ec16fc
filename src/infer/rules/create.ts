/** Ops that make tensors from shapes, constants, counts or data-dependent selections. */
import { addDims, ceilDivDims, floorDivDims, maxDims, subDims } from '../../dims.js';
import { type Dim, type DType, type Shape, tensorType } from '../../types.js';
import { type Call, type Rule, type Rules, unknownShape } from '../call.js';
import { payloadOf } from '../contents.js';
import { withDim } from '../shapes.js';

/** The shape that a vector of dimensions describes. */
function shapeFrom(c: Call, index: number): Shape | null {
  const dims = c.dims(index);
  if (dims !== undefined) return dims;
  const [length] = c.shape(index) ?? [];
  return typeof length === 'number' ? unknownShape(length) : null;
}

const constant: Rule = (c) => {
  const output = c.node.outputs[0];
  const tensor = output === null || output === undefined ? undefined : payloadOf(output);
  if (tensor !== undefined) return c.set(0, tensor.dtype, tensor.dims);
  for (const name of [
    'value_string',
    'value_strings',
    'sparse_value',
    'value',
    'value_int',
    'value_ints',
    'value_float',
    'value_floats',
  ]) {
    const attribute = c.attribute(name);
    if (attribute?.type === 'string') c.set(0, 'string', []);
    else if (attribute?.type === 'strings') c.set(0, 'string', [attribute.value.length]);
    else if (attribute?.type === 'sparse') c.set(0, attribute.value.values.dtype, attribute.value.dims);
    else if (attribute?.type === 'tensor') c.set(0, attribute.value.dtype, attribute.value.dims);
    else if (attribute?.type === 'int') c.set(0, 'int64', []);
    else if (attribute?.type === 'ints') c.set(0, 'int64', [attribute.value.length]);
    else if (attribute?.type === 'float') c.set(0, 'float32', []);
    else if (attribute?.type === 'floats') c.set(0, 'float32', [attribute.value.length]);
  }
};

/** ⌈(limit − start) / delta⌉, at least 0. */
const range: Rule = (c) => {
  const dtype = c.dtype(0) ?? c.dtype(1) ?? c.dtype(2);
  const start = c.dims(0)?.[0] ?? null;
  const limit = c.dims(1)?.[0] ?? null;
  const delta = c.dims(2)?.[0] ?? null;
  let length: Dim = null;
  if (typeof start === 'number' && typeof limit === 'number' && typeof delta === 'number' && delta !== 0)
    length = Math.max(0, Math.ceil((limit - start) / delta));
  else if (typeof delta === 'number' && Number.isInteger(delta) && delta !== 0) {
    const whole = [start, limit].every((x) => typeof x !== 'number' || Number.isInteger(x));
    if (whole) {
      const distance = delta > 0 ? subDims(limit, start) : subDims(start, limit);
      // A fixed start may lie behind a symbolic limit; symbolic bounds are taken to be in order.
      const crossing = typeof start === 'number' && start > 1 && delta > 0;
      length = ceilDivDims(crossing ? maxDims(0, distance) : distance, Math.abs(delta));
    }
  }
  c.set(0, dtype, [length ?? c.engine.freshDim()]);
};

const window: Rule = (c) => {
  c.set(0, c.dtypeAttribute('output_datatype') ?? 'float32', [c.dims(0)?.[0] ?? null]);
};

const random: Rule = (c) => c.set(0, c.dtypeAttribute('dtype') ?? 'float32', c.ints('shape') ?? null);

export const create: Rules = {
  Constant: constant,
  ConstantOfShape: (c) => {
    const value = c.attribute('value');
    const dtype: DType = value?.type === 'tensor' ? value.value.dtype : 'float32';
    c.set(0, dtype, shapeFrom(c, 0));
  },
  ConstantFill: (c) => c.set(0, c.dtypeAttribute('dtype') ?? 'float32', shapeFrom(c, 0)),
  Shape: (c) => {
    const rank = c.rank(0);
    if (rank === undefined) return c.set(0, 'int64', [null]);
    const clamp = (at: number) => Math.min(Math.max(at < 0 ? at + rank : at, 0), rank);
    c.set(0, 'int64', [Math.max(0, clamp(c.int('end', rank)) - clamp(c.int('start', 0)))]);
  },
  Size: (c) => c.set(0, 'int64', []),
  Range: range,
  OneHot: (c) => {
    const indices = c.shape(0);
    const depth = c.dims(1)?.[0] ?? null;
    if (indices === null) return c.set(0, c.dtype(2), null);
    const axis = c.axis(c.int('axis', -1), indices.length + 1);
    c.set(0, c.dtype(2), [...indices.slice(0, axis), depth, ...indices.slice(axis)]);
  },
  NonZero: (c) => {
    const rank = c.rank(0);
    const items = c.contents(0)?.items;
    const known = items?.every((item) => typeof item === 'number') === true;
    const count = known ? items.filter((item) => item !== 0).length : c.engine.freshDim();
    c.set(0, 'int64', [rank === undefined ? null : Math.max(rank, 1), count]);
  },
  TopK: (c) => {
    const shape = c.shape(0);
    const k: Dim = c.int('k') ?? c.dims(1)?.[0] ?? null;
    const out = shape === null ? null : withDim(shape, c.axis(c.int('axis', -1), shape.length), k);
    c.set(0, c.dtype(0), out);
    c.set(1, 'int64', out);
  },
  NonMaxSuppression: (c) => c.set(0, 'int64', [c.engine.freshDim(), 3]),
  RandomNormal: random,
  RandomUniform: random,
  Multinomial: (c) =>
    c.set(0, c.dtypeAttribute('dtype') ?? 'int32', [c.shape(0)?.[0] ?? null, c.int('sample_size', 1)]),
  HannWindow: window,
  HammingWindow: window,
  BlackmanWindow: window,
  MelWeightMatrix: (c) => {
    const length = c.dims(1)?.[0] ?? null;
    const bins = typeof length === 'number' ? Math.floor(length / 2) + 1 : null;
    c.set(0, c.dtypeAttribute('output_datatype') ?? 'float32', [bins, c.dims(0)?.[0] ?? null]);
  },
  Det: (c) => c.set(0, c.dtype(0), c.shape(0)?.slice(0, -2) ?? null),
  DFT: (c) => {
    const shape = c.shape(0);
    if (shape === null) return c.set(0, c.dtype(0), null);
    const given = c.int('axis') ?? (c.has(2) ? c.numbers(2)?.[0] : undefined);
    const axis = c.axis(
      (given ?? (c.engine.opset('') ?? 20) < 20) ? (given ?? 1) : (given ?? -2),
      shape.length,
    );
    const length = c.has(1) ? (c.dims(1)?.[0] ?? null) : (shape[axis] ?? null);
    const half =
      typeof length === 'number' ? Math.floor(length / 2) + 1 : addDims(floorDivDims(length, 2), 1);
    const oneSided = c.int('onesided', 0) !== 0;
    const inverse = c.int('inverse', 0) !== 0;
    const out = withDim(shape, axis, oneSided && !inverse ? half : length);
    c.set(0, c.dtype(0), withDim(out, shape.length - 1, oneSided && inverse ? 1 : 2));
  },
  StringNormalizer: (c) => c.set(0, 'string', c.rank(0) === undefined ? null : unknownShape(c.rank(0)!)),
  StringConcat: (c) => c.set(0, 'string', c.shape(0)),
  SequenceEmpty: (c) =>
    c.setType(0, { kind: 'sequence', element: tensorType(c.dtypeAttribute('dtype') ?? 'float32', null) }),
};
