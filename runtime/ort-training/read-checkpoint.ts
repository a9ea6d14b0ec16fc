/** Reads checkpoints of ONNX Runtime's on-device training: tensors as handles, every claim of the file checked. */
import { existsSync } from 'node:fs';
import { fail } from '../../src/errors.js';
import { FileData } from '../../src/onnx/index.js';
import { FileSource, MemorySource, type Source } from '../../src/onnx/source.js';
import { BytesData, type Tensor, type TensorData } from '../../src/tensor.js';
import { byteSize, countOf, dtypeOfCode } from '../../src/types.js';
import { identifierOf, rootTable, type TableReader } from '../flatbuffer/read.js';
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

const RESTORE = 'Restore the file, or save the checkpoint again';

/** Whether a file says of itself that it is a checkpoint of ONNX Runtime's training. Throws E_IO. */
export function isOrtCheckpoint(path: string): boolean {
  const source = new FileSource(path);
  try {
    return identifierOf(source) === IDENTIFIER;
  } finally {
    source.close();
  }
}

/**
 * Reads a checkpoint from a file, with its data file beside it, or from bytes.
 * Throws E_INVALID_DATA for a file that is no checkpoint, is damaged or of another version; E_EXTERNAL_DATA for a data
 * file that is missing or too short; E_IO.
 */
export function readCheckpoint(from: string | Uint8Array): OrtCheckpoint {
  const source =
    typeof from === 'string' ? new FileSource(from) : new MemorySource(from, 'checkpoint in memory');
  return new Reader(source, typeof from === 'string' ? dataFile(from) : undefined).checkpoint();
}

class Reader {
  #external: FileSource | undefined;

  constructor(
    readonly source: Source,
    readonly dataPath: string | undefined,
  ) {}

  checkpoint(): OrtCheckpoint {
    if (identifierOf(this.source) !== IDENTIFIER)
      return this.#invalid(
        'The file is no checkpoint of ONNX Runtime Training',
        'Give the file that its SaveCheckpoint or emit --target ort-training wrote',
      );
    const { checkpoint, moduleState } = FIELDS;
    const root = rootTable(this.source, RESTORE);
    const version = root.int32(checkpoint.version) ?? 0;
    if (version !== VERSION)
      return this.#invalid(
        `The checkpoint has version ${version}, and version ${VERSION} is what ONNX Runtime 1.17 to 1.19 write`,
        'Save it again with one of these releases',
      );
    const state = root.table(checkpoint.moduleState);
    const nominal = state?.bool(moduleState.nominal) ?? false;
    const trainable = this.#tensors(state?.tables(moduleState.trainable), nominal);
    const frozen = this.#tensors(state?.tables(moduleState.frozen), nominal);
    for (const name of frozen.keys())
      if (trainable.has(name)) return this.#invalid(`The parameter '${name}' is trained and frozen at once`);
    const optimizer = this.#optimizer(root.tables(checkpoint.optimizerGroups) ?? [], trainable, nominal);
    return {
      trainable,
      frozen,
      nominal,
      ...(optimizer === undefined ? {} : { optimizer }),
      properties: this.#properties(root.table(checkpoint.propertyBag)),
    };
  }

  #tensors(entries: readonly TableReader[] | undefined, nominal: boolean): Map<string, Tensor> {
    const tensors = new Map<string, Tensor>();
    for (const entry of entries ?? []) {
      const name = this.#name(entry, FIELDS.tensor.name);
      if (tensors.has(name)) return this.#invalid(`There are two parameters '${name}'`);
      tensors.set(name, this.#tensor(entry, name, nominal));
    }
    return tensors;
  }

  #tensor(entry: TableReader, name: string, nominal: boolean): Tensor {
    const { tensor: field } = FIELDS;
    const code = entry.int32(field.dtype) ?? 0;
    const dtype = dtypeOfCode(code);
    if (dtype === undefined || byteSize(dtype, 8) === 0)
      return this.#invalid(`The tensor '${name}' has element type ${code}, which is none with a fixed size`);
    if (nominal) return { dtype, dims: [], data: new BytesData(new Uint8Array()) };
    const dims = (entry.int64s(field.dims) ?? this.#invalid(`The tensor '${name}' has no dimensions`)).map(
      Number,
    );
    const count = countOf(dims);
    if (dims.some((dim) => !Number.isSafeInteger(dim) || dim < 0) || !Number.isSafeInteger(count))
      return this.#invalid(`The tensor '${name}' has dimensions [${dims.join(', ')}]`);
    const wanted = byteSize(dtype, count);
    const offset = entry.int64(field.externalOffset) ?? -1n;
    const data = offset >= 0n ? this.#outside(name, offset, wanted) : entry.payload(field.data);
    if (data === undefined) return this.#invalid(`The tensor '${name}' has no data`);
    if (data.byteLength !== wanted)
      return this.#invalid(
        `The tensor '${name}' ${dtype}[${dims.join(', ')}] has ${data.byteLength} bytes instead of ${wanted}`,
      );
    return { dtype, dims, data };
  }

  #outside(name: string, offset: bigint, length: number): TensorData {
    const path = this.dataPath;
    if (path === undefined || !existsSync(path))
      return fail('E_EXTERNAL_DATA', {
        message: `The tensor '${name}' lies in a data file, ${path === undefined ? 'and the checkpoint was given as bytes' : 'which does not exist'}`,
        where: path ?? this.source.label,
        remedy:
          path === undefined ? 'Give the path of the checkpoint' : 'Put the .data file beside the checkpoint',
      });
    this.#external ??= new FileSource(path);
    const at = Number(offset);
    if (!Number.isSafeInteger(at) || at + length > this.#external.length)
      return fail('E_EXTERNAL_DATA', {
        message: `The tensor '${name}' needs bytes ${offset} to ${offset + BigInt(length)}, the data file has ${this.#external.length}`,
        where: path,
        remedy: RESTORE,
      });
    return new FileData(this.#external, at, length);
  }

  #optimizer(
    groups: readonly TableReader[],
    params: ReadonlyMap<string, Tensor>,
    nominal: boolean,
  ): OptimizerState | undefined {
    const { group: field, state } = FIELDS;
    const [group, ...rest] = groups;
    if (group === undefined) return undefined;
    const name = this.#name(group, field.name);
    if (rest.length > 0 || name !== GROUP)
      return this.#invalid(
        `The optimizer has groups besides '${GROUP}'`,
        'ONNX Runtime Training has one group; give a checkpoint that it wrote',
      );
    const moments = new Map<string, Tensor[]>();
    for (const entry of group.tables(field.states) ?? []) {
      const param = this.#name(entry, state.param);
      const shape = params.get(param)?.dims.join();
      if (shape === undefined || moments.has(param))
        return this.#invalid(
          `There is optimizer state for '${param}', which is ${shape === undefined ? 'no trained parameter' : 'there twice'}`,
        );
      const tensors = this.#tensors(entry.tables(state.moments), nominal);
      const ordered = [...tensors.keys()].map((_, i) => tensors.get(momentName(i)));
      for (const tensor of ordered)
        if (tensor === undefined || (tensor.dims.join() !== shape && !nominal))
          return this.#invalid(`The optimizer state of '${param}' does not fit it`);
      moments.set(param, ordered as Tensor[]);
    }
    const step = Number(group.int64(field.step) ?? 0n);
    if (!Number.isSafeInteger(step) || step < 0) return this.#invalid(`The optimizer is at step ${step}`);
    return { step, initialLearningRate: group.float32(field.learningRate) ?? 0, moments };
  }

  #properties(bag: TableReader | undefined): Map<string, Property> {
    const { bag: kinds, property } = FIELDS;
    const found = new Map<string, Property>();
    const read = (id: number, value: (entry: TableReader) => Property): void => {
      for (const entry of bag?.tables(id) ?? []) found.set(this.#name(entry, property.name), value(entry));
    };
    read(kinds.ints, (entry) => entry.int64(property.value) ?? 0n);
    read(kinds.floats, (entry) => entry.float32(property.value) ?? 0);
    read(kinds.strings, (entry) => entry.string(property.value) ?? '');
    return found;
  }

  #name(entry: TableReader, id: number): string {
    return entry.string(id) ?? this.#invalid('An entry has no name');
  }

  #invalid(message: string, remedy = RESTORE): never {
    return fail('E_INVALID_DATA', { message, where: this.source.label, remedy });
  }
}
