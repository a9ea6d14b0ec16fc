/**
 * `.onnx_adapter`: a FlatBuffer of named tensors that ONNX Runtime appends to the feeds of a run (`OrtLoraAdapter`).
 * Schema: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1. Tables stand in front of what they
 * point to, and payloads at multiples of 8, since the file is mapped into memory.
 */
import { fail } from '../../src/errors.js';
import { atomicWrite } from '../../src/onnx/index.js';
import { payloadChunks, type Tensor } from '../../src/tensor.js';
import { DTYPE_CODES } from '../../src/types.js';

/** FlatBuffers address 2 GiB. */
const LIMIT = 2 ** 31 - 1;
const ROOT = 20;
const PARAMETER_VTABLE = 40;
const VECTOR = 52;
const TABLE_SIZE = 20;

interface Placed {
  readonly name: Uint8Array;
  readonly tensor: Tensor;
  readonly table: number;
  readonly nameAt: number;
  readonly dimsAt: number;
  readonly dataAt: number;
}

/** Writes tensors, by name of the graph input. Throws E_UNSUPPORTED for scalars and above 2 GiB, E_EXISTS. */
export async function writeOnnxAdapter(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  { force = false }: { readonly force?: boolean } = {},
): Promise<void> {
  const { placed, end } = place(tensors);
  if (end > LIMIT)
    fail('E_UNSUPPORTED', {
      message: `The adapter takes ${end} bytes; the format ends at 2 GiB`,
      where: path,
      remedy: 'Export it as safetensors or npz',
    });
  await atomicWrite(path, { force }, async (sink) => {
    await sink.write(head(placed));
    for (const one of placed) {
      await sink.write(parameter(one, sink.position));
      for await (const chunk of payloadChunks(one.tensor.data)) await sink.write(chunk);
    }
    await sink.write(new Uint8Array(end - sink.position));
  });
}

/** Positions of everything; vectors hold their length in the 4 bytes in front of their elements. */
function place(tensors: ReadonlyMap<string, Tensor>): { readonly placed: Placed[]; readonly end: number } {
  let position = VECTOR + 4 + 4 * tensors.size;
  const placed = [...tensors].map(([text, tensor]): Placed => {
    if (tensor.dims.length === 0)
      fail('E_UNSUPPORTED', {
        message: 'The format has no scalars',
        where: text,
        remedy: 'Export it as npz',
      });
    const name = new TextEncoder().encode(text);
    const table = position;
    const nameAt = table + TABLE_SIZE;
    const dimsAt = aligned(nameAt + 4 + name.length + 1);
    const dataAt = aligned(dimsAt + 4 + 8 * tensor.dims.length);
    position = Math.ceil((dataAt + 4 + tensor.data.byteLength) / 4) * 4;
    return { name, tensor, table, nameAt, dimsAt, dataAt };
  });
  return { placed, end: Math.ceil(position / 8) * 8 };
}

/** The first position from here on whose elements, 4 bytes later, are at a multiple of 8. */
function aligned(position: number): number {
  return Math.ceil((position + 4) / 8) * 8 - 4;
}

function head(placed: readonly Placed[]): Uint8Array {
  const bytes = new Uint8Array(VECTOR + 4 + 4 * placed.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ROOT, true);
  bytes.set(new TextEncoder().encode('TORT'), 4);
  vtable(view, 8);
  view.setInt32(ROOT, ROOT - 8, true);
  // Versions of the format, of the adapter and of the model.
  for (const field of [4, 8, 12]) view.setInt32(ROOT + field, 1, true);
  view.setUint32(ROOT + 16, VECTOR - (ROOT + 16), true);
  vtable(view, PARAMETER_VTABLE);
  view.setUint32(VECTOR, placed.length, true);
  for (const [i, { table }] of placed.entries()) {
    const at = VECTOR + 4 + 4 * i;
    view.setUint32(at, table - at, true);
  }
  return bytes;
}

/** Four fields of 4 bytes. */
function vtable(view: DataView, at: number): void {
  for (const [i, value] of [12, TABLE_SIZE, 4, 8, 12, 16].entries()) view.setUint16(at + 2 * i, value, true);
}

/** A parameter up to its payload; `start` is where the file is. */
function parameter({ name, tensor, table, nameAt, dimsAt, dataAt }: Placed, start: number): Uint8Array {
  const { dims, dtype, data } = tensor;
  const bytes = new Uint8Array(dataAt + 4 - start);
  const view = new DataView(bytes.buffer);
  const offset = (field: number, to: number) =>
    view.setUint32(table + field - start, to - (table + field), true);
  view.setInt32(table - start, table - PARAMETER_VTABLE, true);
  offset(4, nameAt);
  offset(8, dimsAt);
  view.setInt32(table + 12 - start, DTYPE_CODES[dtype], true);
  offset(16, dataAt);
  view.setUint32(nameAt - start, name.length, true);
  bytes.set(name, nameAt + 4 - start);
  view.setUint32(dimsAt - start, dims.length, true);
  for (const [i, dim] of dims.entries()) view.setBigInt64(dimsAt + 4 + 8 * i - start, BigInt(dim), true);
  view.setUint32(dataAt - start, data.byteLength, true);
  return bytes;
}
