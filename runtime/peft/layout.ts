/** Tensors of PEFT in our layout and back: elements are moved, never converted, whatever their dtype. */
import type { PeftSlice, PeftTensor, PeftWhole } from '../../passes/methods/contract/peft-format.js';
import { type Tensor, type TensorData, tensorOfBytes } from '../../src/tensor.js';
import { byteSize, countOf, type DType, isFloat } from '../../src/types.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import { gathered, transposed, viewOf } from '../moved.js';

/** Whether PEFT's tensor is the transpose of ours. `outFirst`: whether the module's weight is stored [out, in]. */
function isTurned({ transposed, weight }: PeftTensor, shape: readonly number[], outFirst: boolean): boolean {
  return shape.length === 2 && (transposed === true || (weight === true && outFirst));
}

/** Shape of PEFT's tensor for a parameter of ours. */
export function peftShape(spec: PeftTensor, shape: readonly number[], outFirst: boolean): readonly number[] {
  return isTurned(spec, shape, outFirst) ? [...shape].reverse() : shape;
}

/** Its shape at a module: that, or the one that it has at a convolution. */
export function moduleShape(
  spec: PeftTensor,
  shape: readonly number[],
  window: readonly number[] | undefined,
): readonly number[] {
  const plain = peftShape(spec, shape, true);
  return window === undefined ? plain : (spec.convolved?.(plain, window) ?? plain);
}

/** A payload whose elements stand elsewhere in another one; computed at every reading. */
class MovedData implements TensorData {
  readonly byteLength: number;
  constructor(
    readonly source: Tensor,
    shape: readonly number[],
    dtype: DType,
    readonly move: (read: HostTensor) => HostTensor,
  ) {
    this.byteLength = byteSize(isFloat(dtype) ? source.dtype : dtype, countOf(shape));
  }

  read(offset: number, length: number): Uint8Array {
    return this.#bytes().subarray(offset, offset + length);
  }

  async *stream(): AsyncGenerator<Uint8Array> {
    yield this.#bytes();
  }

  #bytes(): Uint8Array {
    const { dtype, dims, data } = this.source;
    return this.move({ dtype, dims, data: data.inline ?? data.read(0, data.byteLength) }).data;
  }
}

/**
 * Whether a tensor of PEFT has the shape, up to padding. At a convolution it has axes for the window; those of a 1×1
 * convolution may be left where the graph has a product.
 */
export function fitsShape(
  { padded, convolved }: PeftTensor,
  dims: readonly number[],
  wanted: readonly number[],
  window: readonly number[] | undefined,
): boolean {
  const plain = wanted.join();
  if (dims.join() === plain) return true;
  if (window !== undefined && convolved !== undefined && dims.join() === convolved(wanted, window).join())
    return true;
  if (
    window === undefined &&
    dims.slice(0, -2).join() === plain &&
    dims.slice(-2).every((size) => size === 1)
  )
    return true;
  return padded === true && within(dims, wanted);
}

/** PEFT's tensor as our parameter; undefined where the shapes do not fit. A tensor that stays as it is is not read. */
export async function toOurs(
  given: Tensor,
  spec: PeftTensor,
  param: {
    readonly shape: readonly number[];
    readonly dtype: DType;
    readonly window?: readonly number[] | undefined;
  },
  outFirst: boolean,
): Promise<Tensor | undefined> {
  const { shape, dtype, window } = param;
  const wanted = peftShape(spec, shape, outFirst);
  if (!fitsShape(spec, given.dims, wanted, window)) return undefined;
  const tensor = countOf(given.dims) === countOf(wanted) ? { ...given, dims: wanted } : given;
  const fits = tensor.dims.join() === wanted.join();
  const turned = isTurned(spec, shape, outFirst);
  if (fits && !turned && (isFloat(dtype) || tensor.dtype === dtype)) return tensor;
  const move = (read: HostTensor): HostTensor => {
    const whole = fits ? read : padded(read, wanted);
    const ours = turned ? transposed(whole) : whole;
    return isFloat(dtype) ? ours : tensorOfNumbers(dtype, shape, numbersOf(ours));
  };
  // Payloads of files are moved when they are asked for, so that a folder is never in memory as a whole.
  if (tensor.data.stream === undefined)
    return {
      dtype: isFloat(dtype) ? tensor.dtype : dtype,
      dims: shape,
      data: new MovedData(tensor, shape, dtype, move),
    };
  return handle(move(await loadTensor(tensor)));
}

/** A tensor whose element `i` is element `at(i)` of another one that a file holds; moved when it is read. */
export function movedTensor(tensor: Tensor, dims: readonly number[], at: (i: number) => number): Tensor {
  const { dtype } = tensor;
  return { dtype, dims, data: new MovedData(tensor, dims, dtype, (read) => gathered(read, dims, at)) };
}

function within(dims: readonly number[], shape: readonly number[]): boolean {
  return dims.length === 2 && shape.length === 2 && dims.every((dim, axis) => dim <= (shape[axis] as number));
}

/** Zeros behind the rows and columns that there are. */
function padded(tensor: HostTensor, shape: readonly number[]): HostTensor {
  const [rows = 1, columns = 1] = tensor.dims;
  const [, wide = 1] = shape;
  return gathered(tensor, shape, (i) => {
    const [row, column] = [Math.floor(i / wide), i % wide];
    return row < rows && column < columns ? row * columns + column : undefined;
  });
}

/** Our parameter as PEFT's tensor, with axes for the window of a convolution. */
export async function toPeft(
  tensor: Tensor,
  spec: PeftTensor,
  outFirst: boolean,
  window?: readonly number[],
): Promise<Tensor> {
  const turned = isTurned(spec, tensor.dims, outFirst)
    ? handle(transposed(await loadTensor(tensor)))
    : tensor;
  return window === undefined || spec.convolved === undefined
    ? turned
    : { ...turned, dims: spec.convolved(turned.dims, window) };
}

/** The part of a tensor of all modules that is one parameter. */
export function sliceOf(tensor: HostTensor, whole: PeftWhole, slice: PeftSlice): Tensor {
  return handle(gathered(tensor, slice.shape, (i) => whole.at(i, slice, tensor.dims)));
}

/** The tensor of all modules, of its parts. */
export function joined(
  parts: readonly { readonly slice: PeftSlice; readonly tensor: HostTensor }[],
  whole: PeftWhole,
): Tensor {
  const dims = whole.shape(parts.map(({ slice }) => slice));
  const [first] = parts;
  const { dtype } = (first as (typeof parts)[number]).tensor;
  const all: HostTensor = { dtype, dims, data: new Uint8Array(byteSize(dtype, countOf(dims))) };
  const to = viewOf(all);
  for (const { slice, tensor } of parts) {
    const from = viewOf(tensor);
    for (let i = 0; i < from.length; i++) to[whole.at(i, slice, dims)] = from[i] as never;
  }
  return handle(all);
}

function handle({ dtype, dims, data }: HostTensor): Tensor {
  return tensorOfBytes(dtype, dims, data);
}
