/** Tensors to `TensorProto`. Where the payload goes is decided by a `Placement`. */
import type { SparseTensor } from '../attribute.js';
import { fail } from '../errors.js';
import { expectedBytes, type Tensor } from '../tensor.js';
import { DTYPE_CODES } from '../types.js';
import type { InfoText } from './encode-type.js';
import { ENTRY, SPARSE, TENSOR } from './fields.js';
import { originOf } from './origin.js';
import { ExternalData, SparseData } from './payload.js';
import { Rewriter } from './rewrite.js';
import {
  bytesField,
  concat,
  dataField,
  type Encoded,
  intField,
  messageField,
  ropeField,
  stringField,
} from './rope.js';
import type { Message } from './wire.js';

/** `as-is`: the bytes or the reference that the file had. `raw`: inline. Otherwise a range of a file beside the model. */
export type Place =
  | 'as-is'
  | 'raw'
  | { readonly location: string; readonly offset: number; readonly length: number };

export interface Placement {
  /** Called once for each initializer in order. */
  initializer(tensor: Tensor): Place;
  /** Called for tensors inside attributes, which must stay inside the model file. */
  attribute(tensor: Tensor): Place;
}

const PAYLOAD_FIELDS = [
  TENSOR.floatData,
  TENSOR.int32Data,
  TENSOR.stringData,
  TENSOR.int64Data,
  TENSOR.raw,
  TENSOR.doubleData,
  TENSOR.uint64Data,
  TENSOR.external,
  TENSOR.location,
] as const;

/** @param template message of the tensor that this one replaces; its other fields are kept. */
export function encodeTensor(
  tensor: Tensor,
  name: string,
  place: Place,
  texts?: InfoText,
  template?: Message,
): Encoded {
  const own = originOf(tensor);
  const rewriter = new Rewriter(own ?? template);
  rewriter.ints(TENSOR.dims, tensor.dims);
  if (own === undefined) rewriter.int(TENSOR.dtype, DTYPE_CODES[tensor.dtype]);
  rewriter.string(TENSOR.name, name);
  if (texts !== undefined) rewriter.string(TENSOR.doc, texts.doc).entries(TENSOR.metadata, texts.metadata);
  if (place === 'as-is' && own !== undefined) return rewriter.done();
  rewriter.drop(...PAYLOAD_FIELDS);
  if (tensor.strings !== undefined)
    rewriter.set(TENSOR.stringData, concat(tensor.strings.map((s) => bytesField(TENSOR.stringData, s))));
  else {
    checkSize(tensor, name);
    const target = place === 'as-is' ? reference(tensor) : place;
    if (target === 'raw') {
      if (tensor.data.byteLength > 0) rewriter.set(TENSOR.raw, dataField(TENSOR.raw, tensor.data));
      else rewriter.set(TENSOR.raw, bytesField(TENSOR.raw, new Uint8Array(0)));
    } else {
      rewriter.set(
        TENSOR.external,
        concat(
          Object.entries(target).map(([key, value]) =>
            ropeField(
              TENSOR.external,
              concat([stringField(ENTRY.key, key), stringField(ENTRY.value, String(value))]),
            ),
          ),
        ),
      );
      rewriter.set(TENSOR.location, intField(TENSOR.location, 1));
    }
  }
  return rewriter.done();
}

/** A tensor without an encoded form that shares the payload of one that was external stays external. */
function reference({ data }: Tensor): Exclude<Place, 'as-is'> {
  if (!(data instanceof ExternalData)) return 'raw';
  return { location: data.location, offset: data.offset, length: data.byteLength };
}

function checkSize(tensor: Tensor, name: string): void {
  if (tensor.dtype === 'undefined') return;
  const expected = expectedBytes(tensor);
  if (tensor.data.byteLength !== expected)
    fail('E_INVALID_GRAPH', {
      message: `The payload has ${tensor.data.byteLength} bytes where ${tensor.dtype}[${tensor.dims.join(', ')}] calls for ${expected}`,
      where: `tensor '${name}'`,
    });
}

export function encodeSparse(sparse: SparseTensor, placement: Placement): Encoded {
  const origin = originOf(sparse);
  const part = (tensor: Tensor): Encoded => {
    const own = originOf(tensor)?.parse().string(TENSOR.name);
    return encodeTensor(tensor, own ?? '', placement.attribute(tensor));
  };
  return new Rewriter(origin)
    .set(SPARSE.values, messageField(SPARSE.values, part(sparse.values)))
    .set(SPARSE.indices, messageField(SPARSE.indices, part(sparse.indices)))
    .ints(SPARSE.dims, sparse.dims)
    .done();
}

/** The sparse form of an initializer that came from `sparse_initializer` under this name. */
export function sparseForm(tensor: Tensor, name: string): SparseTensor | undefined {
  if (!(tensor.data instanceof SparseData)) return undefined;
  const { sparse } = tensor.data;
  return originOf(sparse.values)?.parse().string(TENSOR.name) === name ? sparse : undefined;
}
