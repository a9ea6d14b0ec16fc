/** Writes checkpoints of ONNX Runtime's on-device training. */
import { existsSync, rmSync } from 'node:fs';
import { atomicWrite, type Sink } from '../../src/onnx/index.js';
import { BytesData, payloadChunks, type Tensor } from '../../src/tensor.js';
import { byteSize, DTYPE_CODES } from '../../src/types.js';
import {
  bytes,
  flag,
  float32,
  int32,
  int64,
  int64s,
  type Reference,
  type Scalar,
  type TableNode,
  table,
  tables,
  text,
} from '../flatbuffer/objects.js';
import { type FlatBuffer, layOut, wholeOf } from '../flatbuffer/write.js';
import {
  dataFile,
  FIELDS,
  GROUP,
  IDENTIFIER,
  momentName,
  type OptimizerState,
  type OrtCheckpoint,
  type Property,
  VERSION,
} from './checkpoint.js';
import { isOrtCheckpoint } from './read-checkpoint.js';

export interface WriteCheckpointOptions {
  readonly force?: boolean;
  /**
   * `auto` (default): tensors go into `<path>.data` from 1800 MiB on, as the runtime does. The runtime cannot read such
   * checkpoints from memory, which is how JavaScript gives them to it.
   */
  readonly externalData?: 'auto' | 'always' | 'never';
}

/** Where ONNX Runtime itself goes over to a file of data. */
const EXTERNAL_FROM = 1800 * 1024 * 1024;
/** Tensors below this stay inside. */
const EXTERNAL_TENSOR = 64;

/**
 * Writes a checkpoint; its data file first, if it has one. Returns the paths.
 * Throws E_EXISTS without `force`, E_IO, and E_UNSUPPORTED for more than 2 GiB without a data file.
 */
export async function writeCheckpoint(
  path: string,
  checkpoint: OrtCheckpoint,
  options: WriteCheckpointOptions = {},
): Promise<string[]> {
  const { force = false, externalData = 'auto' } = options;
  const external =
    externalData === 'always' || (externalData === 'auto' && sizeOf(checkpoint) >= EXTERNAL_FROM);
  if (!external) {
    const buffer = encodeCheckpoint(checkpoint);
    const replaced = force && existsSync(path) && isOrtCheckpoint(path);
    await atomicWrite(path, { force }, (sink) => buffer.write(sink));
    // What the checkpoint that was replaced kept beside itself belongs to nothing now.
    if (replaced) rmSync(dataFile(path), { force: true });
    return [path];
  }
  const data = dataFile(path);
  // Both places are looked at before anything is written.
  await atomicWrite(path, { force }, async (sink) => {
    const offsets = await atomicWrite(data, { force }, (into) => writeTensors(into, checkpoint));
    await encodeCheckpoint(checkpoint, offsets).write(sink);
  });
  return [data, path];
}

/** The checkpoint as bytes, for bindings that take it from memory. */
export async function checkpointBytes(checkpoint: OrtCheckpoint): Promise<Uint8Array> {
  return wholeOf(encodeCheckpoint(checkpoint));
}

/** The same parameters by name and type alone; their values are loaded through the API. */
export function nominalOf({ trainable, frozen, properties }: OrtCheckpoint): OrtCheckpoint {
  const empty = (tensors: ReadonlyMap<string, Tensor>): Map<string, Tensor> =>
    new Map(
      [...tensors].map(([name, { dtype }]) => [
        name,
        { dtype, dims: [], data: new BytesData(new Uint8Array()) },
      ]),
    );
  return { trainable: empty(trainable), frozen: empty(frozen), nominal: true, properties };
}

/** Offsets of the tensors that are in the data file. */
type Offsets = ReadonlyMap<Tensor, number>;

function encodeCheckpoint(checkpoint: OrtCheckpoint, offsets?: Offsets): FlatBuffer {
  const { trainable, frozen, nominal, optimizer, properties } = checkpoint;
  const tensors = (named: ReadonlyMap<string, Tensor>): Reference =>
    tables([...named].map(([name, tensor]) => tensorTable(name, tensor, offsets)));
  const { checkpoint: root, moduleState: state } = FIELDS;
  return layOut(
    table({
      [root.version]: int32(VERSION),
      [root.moduleState]: table({
        [state.trainable]: tensors(trainable),
        [state.frozen]: tensors(frozen),
        [state.nominal]: flag(nominal),
        [state.externalData]: flag(offsets !== undefined),
      }),
      [root.optimizerGroups]: optimizer === undefined ? undefined : tables([groupTable(optimizer, offsets)]),
      [root.propertyBag]: properties.size === 0 ? undefined : bagTable(properties),
    }),
    IDENTIFIER,
    'Put the tensors into a file of their own (external data)',
  );
}

function tensorTable(name: string, tensor: Tensor, offsets: Offsets | undefined): TableNode {
  const { tensor: field } = FIELDS;
  const offset = offsets?.get(tensor);
  return table({
    [field.name]: text(name),
    [field.dims]: int64s(tensor.dims),
    [field.dtype]: int32(DTYPE_CODES[tensor.dtype]),
    ...(offset === undefined
      ? { [field.data]: bytes(tensor.data) }
      : { [field.externalOffset]: int64(offset) }),
  });
}

function groupTable(optimizer: OptimizerState, offsets: Offsets | undefined): TableNode {
  const { group, state } = FIELDS;
  return table({
    [group.name]: text(GROUP),
    [group.step]: int64(optimizer.step),
    [group.learningRate]: float32(optimizer.initialLearningRate),
    [group.states]: tables(
      [...optimizer.moments].map(([param, moments]) =>
        table({
          [state.param]: text(param),
          [state.moments]: tables(moments.map((tensor, i) => tensorTable(momentName(i), tensor, offsets))),
        }),
      ),
    ),
  });
}

function bagTable(properties: ReadonlyMap<string, Property>): TableNode {
  const { bag, property } = FIELDS;
  const entry = (name: string, value: Scalar | Reference): TableNode =>
    table({ [property.name]: text(name), [property.value]: value });
  const ints: TableNode[] = [];
  const floats: TableNode[] = [];
  const strings: TableNode[] = [];
  for (const [name, value] of properties)
    if (typeof value === 'bigint') ints.push(entry(name, int64(value)));
    else if (typeof value === 'number') floats.push(entry(name, float32(value)));
    else strings.push(entry(name, text(value)));
  return table({
    [bag.ints]: tables(ints),
    [bag.floats]: tables(floats),
    [bag.strings]: tables(strings),
  });
}

function* allTensors({ trainable, frozen, optimizer }: OrtCheckpoint): Generator<Tensor> {
  yield* trainable.values();
  yield* frozen.values();
  for (const moments of optimizer?.moments.values() ?? []) yield* moments;
}

function sizeOf(checkpoint: OrtCheckpoint): number {
  let size = 0;
  for (const { data } of allTensors(checkpoint)) size += data.byteLength;
  return size;
}

async function writeTensors(sink: Sink, checkpoint: OrtCheckpoint): Promise<Offsets> {
  const offsets = new Map<Tensor, number>();
  for (const tensor of allTensors(checkpoint)) {
    const { data, dtype } = tensor;
    if (data.byteLength < EXTERNAL_TENSOR || offsets.has(tensor)) continue;
    // 64-bit elements at multiples of 8, all others at multiples of 4.
    const alignment = Math.max(4, byteSize(dtype, 1));
    const padding = (alignment - (sink.position % alignment)) % alignment;
    if (padding > 0) await sink.write(new Uint8Array(padding));
    offsets.set(tensor, sink.position);
    for await (const chunk of payloadChunks(data)) await sink.write(chunk);
  }
  return offsets;
}
