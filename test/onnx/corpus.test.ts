import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import type { Attribute } from '../../src/attribute.js';
import { Cloner, cloneModel } from '../../src/clone.js';
import { walkGraphs } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { encodeModel, readModel, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { GOLDEN, hasGolden, modelFiles, scratch } from './support.js';

const files = modelFiles();

describe('every ONNX file at hand', () => {
  it('is there', () => expect(files.length).toBeGreaterThan(10));
  it.skipIf(!hasGolden)('covers the golden files', () =>
    expect(files.some(({ path }) => path.startsWith(GOLDEN))).toBe(true),
  );

  for (const { name, path } of files) {
    it(`re-encodes byte for byte: ${name}`, () => {
      const bytes = readFileSync(path);
      const model = readModel(path);
      expect(bytes.equals(encodeModel(model))).toBe(true);
      expect(bytes.equals(encodeModel(cloneModel(model).model))).toBe(true);
    });

    it(`means the same when nothing of the original encoding is reused: ${name}`, () => {
      const bytes = encodeModel(forgetOrigins(readModel(path)));
      expect(plain(bytes)).toEqual(plain(readFileSync(path)));
    });
  }

  it('saves by stream what it encodes in memory', async () => {
    const folder = scratch();
    for (const { path } of files.slice(0, 6)) {
      const model = readModel(path);
      const target = join(folder, 'copy.onnx');
      await writeModel(model, target, { force: true });
      expect(readFileSync(target).equals(encodeModel(model))).toBe(true);
    }
  });
});

/** A copy of the model none of whose parts knows what it was decoded from. */
function forgetOrigins(original: Model): Model {
  // A shallow copy of an immutable part is a new object, and origins are kept by object.
  const tensor = (t: Tensor): Tensor => ({ ...t });
  const attribute = (a: Attribute): Attribute => {
    switch (a.type) {
      case 'tensor':
        return { ...a, value: tensor(a.value) };
      case 'tensors':
        return { ...a, value: a.value.map(tensor) };
      default:
        return { ...a };
    }
  };
  const { model } = cloneModel(original);
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) value.tensor = value.tensor && tensor(value.tensor);
  const roots = [model.graph, ...model.functions.map((f) => f.graph)];
  for (const root of roots)
    for (const graph of walkGraphs(root)) {
      for (const node of graph.nodes())
        for (const [key, a] of node.attributes) node.attributes.set(key, attribute(a));
    }
  // A cloner of regions hands no origins on, unlike `cloneModel`.
  const cloner = new Cloner();
  const fresh = new Model(cloner.graph(model.graph));
  fresh.irVersion = model.irVersion;
  fresh.producerName = model.producerName;
  fresh.producerVersion = model.producerVersion;
  fresh.domain = model.domain;
  fresh.modelVersion = model.modelVersion;
  if (model.doc !== undefined) fresh.doc = model.doc;
  for (const [domain, version] of model.opsets) fresh.opsets.set(domain, version);
  for (const [key, value] of model.metadata) fresh.metadata.set(key, value);
  for (const fn of model.functions) fresh.functions.push({ ...fn, graph: cloner.graph(fn.graph) });
  return fresh;
}

/** What another reader (ONNX 1.10's schema) understands of a model, payloads brought into one form. */
function plain(bytes: Uint8Array): unknown {
  const { ModelProto } = onnxProto.onnx;
  const object = ModelProto.toObject(ModelProto.decode(bytes), {
    longs: String,
    bytes: String,
    enums: Number,
  });
  return normal(object);
}

/** Absent and default fields are the same; typed payload fields become raw ones; inner declarations are optional. */
function normal(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normal);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value as Record<string, unknown>)
    .map(([key, item]) => [key, normal(item)] as const)
    .filter(
      ([, item]) =>
        !(item === '' || item === 0 || item === '0' || (Array.isArray(item) && item.length === 0)),
    );
  const object = Object.fromEntries(entries);
  if ('node' in object) delete object.valueInfo;
  if ('dataType' in object || 'dims' in object) return rawTensor(object);
  return object;
}

function rawTensor(tensor: Record<string, unknown>): Record<string, unknown> {
  const { floatData, int32Data, int64Data, doubleData, rawData, ...rest } = tensor;
  const write = (
    list: unknown,
    width: number,
    put: (b: Buffer, at: number, x: string | number) => void,
  ): string => {
    const items = list as (string | number)[];
    const buffer = Buffer.alloc(items.length * width);
    for (const [i, item] of items.entries()) put(buffer, i * width, item);
    return buffer.toString('base64');
  };
  const widths: Record<number, number> = { 6: 4, 9: 1, 10: 2, 16: 2, 2: 1, 3: 1, 4: 2, 5: 2 };
  const width = widths[rest.dataType as number] ?? 4;
  const raw =
    floatData !== undefined
      ? write(floatData, 4, (b, at, x) => b.writeFloatLE(Number(x), at))
      : int64Data !== undefined
        ? write(int64Data, 8, (b, at, x) => b.writeBigInt64LE(BigInt(x), at))
        : doubleData !== undefined
          ? write(doubleData, 8, (b, at, x) => b.writeDoubleLE(Number(x), at))
          : int32Data !== undefined
            ? write(int32Data, width, (b, at, x) =>
                b.writeIntLE(Number(BigInt.asIntN(width * 8, BigInt(x))), at, width),
              )
            : rawData;
  return raw === undefined ? rest : { ...rest, rawData: raw };
}
