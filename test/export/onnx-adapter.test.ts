/** `.onnx_adapter`: as ONNX Runtime writes it, refused where it is damaged, and read as an adapter. */
import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { ByteBuffer } from 'flatbuffers';
import { afterAll, describe, expect, it } from 'vitest';
import { attachAdapter } from '../../passes/insert/insert.js';
import { servingInputs } from '../../passes/targets/serving.js';
import { type AdapterFile, readAdapter, writeAdapter } from '../../runtime/adapter-file.js';
import { fingerprint } from '../../runtime/export/onnx-adapter/fingerprint.js';
import { decodeOnnxAdapter, readOnnxAdapter } from '../../runtime/export/onnx-adapter/read.js';
import { encodeOnnxAdapter, writeOnnxAdapter } from '../../runtime/export/onnx-adapter/write.js';
import { servingTensors } from '../../runtime/export/serving-tensors.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import { PeftCompileError } from '../../src/errors.js';
import { readModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { cli, cliJson, temporaryFolder } from '../cli/support.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath, goldenPath, modelFixture } from '../helpers/fixtures.js';

const folder = temporaryFolder();
afterAll(() => folder.remove());

const written = fixturePath('onnx-adapter', 'written.onnx_adapter');

async function contents(tensors: ReadonlyMap<string, Tensor>) {
  const held = [];
  for (const [name, tensor] of tensors)
    held.push([name, tensor.dtype, tensor.dims, Array.from(numbersOf(await loadTensor(tensor)))]);
  return held;
}

/** A file as the FlatBuffers library reads it by the schema. */
function asOthersRead(bytes: Uint8Array): unknown {
  const buffer = new ByteBuffer(bytes);
  const field = (table: number, id: number) => {
    const offset = buffer.__offset(table, 4 + 2 * id);
    return offset === 0 ? undefined : table + offset;
  };
  const int = (table: number, id: number) => {
    const at = field(table, id);
    return at === undefined ? 0 : buffer.readInt32(at);
  };
  const vector = (table: number, id: number) => {
    const at = field(table, id);
    return at === undefined
      ? { start: 0, count: 0 }
      : { start: buffer.__vector(at), count: buffer.__vector_len(at) };
  };
  const root = buffer.readInt32(0);
  const parameters = vector(root, 3);
  return {
    marked: buffer.__has_identifier('TORT'),
    versions: [0, 1, 2].map((id) => int(root, id)),
    parameters: Array.from({ length: parameters.count }, (_, i) => {
      const table = buffer.__indirect(parameters.start + 4 * i);
      const [dims, data] = [vector(table, 1), vector(table, 3)];
      return {
        name: buffer.__string(field(table, 0) ?? 0),
        dims: Array.from({ length: dims.count }, (_, axis) => buffer.readInt64(dims.start + 8 * axis)),
        type: int(table, 2),
        data: Array.from(bytes.subarray(data.start, data.start + data.count)),
      };
    }),
  };
}

describe('ONNX Runtime writes', () => {
  it('what is read here', async () => {
    const expected = JSON.parse(readFileSync(fixturePath('onnx-adapter', 'written.json'), 'utf8')) as {
      adapterVersion: number;
      modelVersion: number;
      tensors: Record<string, { dtype: string; shape: number[]; values: number[] }>;
    };
    const { tensors, ...versions } = readOnnxAdapter(written);
    expect(versions).toEqual({ adapterVersion: 3, modelVersion: 7 });
    expect([...tensors.keys()].sort()).toEqual(Object.keys(expected.tensors).sort());
    for (const [name, { dtype, shape, values }] of Object.entries(expected.tensors)) {
      const tensor = tensors.get(name)!;
      expect([tensor.dtype, tensor.dims]).toEqual([dtype, shape]);
      expect(Array.from(numbersOf(await loadTensor(tensor)))).toEqual(values);
    }
  });

  const golden = goldenPath('ort-lora/two_params_lora_model.onnx_adapter');
  it.each([
    ['the fixture', written],
    ["ONNX Runtime's own test file", golden],
  ])('what is written here, to a reader of others: %s', async (_, path) => {
    if (path === undefined) return expect(golden).toBeUndefined();
    const { tensors, ...versions } = readOnnxAdapter(path);
    const bytes = await encodeOnnxAdapter(tensors, versions);
    expect(asOthersRead(bytes)).toEqual(asOthersRead(readFileSync(path)));
  });
});

describe('files', () => {
  it('hold payloads at multiples of 8, whatever is around them', async () => {
    const tensors = new Map<string, Tensor>();
    for (let i = 1; i < 12; i++)
      tensors.set(
        'n'.repeat(i),
        tensorOfBytes(
          'uint8',
          [i],
          Uint8Array.from({ length: i }, (_, k) => k + i),
        ),
      );
    const bytes = await encodeOnnxAdapter(tensors);
    const again = decodeOnnxAdapter(bytes).tensors;
    expect(await contents(again)).toEqual(await contents(tensors));
    for (const { data } of again.values()) expect((data as unknown as { offset: number }).offset % 8).toBe(0);
  });

  it('are written with free versions, and not over others', async () => {
    const tensors = new Map([['a', tensorOfBytes('float32', [1, 0], new Uint8Array(0))]]);
    const path = folder.path('versions.onnx_adapter');
    await writeOnnxAdapter(path, tensors, { adapterVersion: 0, modelVersion: -5 });
    expect(readOnnxAdapter(path)).toMatchObject({ adapterVersion: 0, modelVersion: -5 });
    await expect(writeOnnxAdapter(path, tensors)).rejects.toMatchObject({ code: 'E_EXISTS' });
    await expect(encodeOnnxAdapter(tensors, { modelVersion: 2 ** 31 })).rejects.toMatchObject({
      code: 'E_USAGE',
    });
    const scalar = new Map([['s', tensorOfBytes('float32', [], new Uint8Array(4))]]);
    await expect(encodeOnnxAdapter(scalar)).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
    const bool = new Map([['b', tensorOfBytes('bool', [1], new Uint8Array(1))]]);
    await expect(encodeOnnxAdapter(bool)).rejects.toMatchObject({ code: 'E_UNSUPPORTED' });
  });

  it('that are damaged are an error of ours, or hold tensors that lie inside', () => {
    const bytes = new Uint8Array(readFileSync(written));
    const readable = (changed: Uint8Array): boolean => {
      try {
        for (const { dims, data } of decodeOnnxAdapter(changed).tensors.values()) {
          expect(dims.length).toBeGreaterThan(0);
          expect(data.read(0, data.byteLength).length).toBe(data.byteLength);
        }
        return true;
      } catch (cause) {
        if (!(cause instanceof PeftCompileError)) throw cause;
        expect(['E_INVALID_DATA', 'E_UNSUPPORTED']).toContain(cause.code);
        return false;
      }
    };
    expect(readable(bytes)).toBe(true);
    let refused = 0;
    for (let length = 0; length < bytes.length; length += 3)
      if (!readable(bytes.subarray(0, length))) refused++;
    expect(refused).toBeGreaterThan(150);
    fc.assert(
      fc.property(
        fc.nat(bytes.length - 4),
        fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        (at, value) => {
          const changed = bytes.slice();
          new DataView(changed.buffer).setInt32(at, value, true);
          readable(changed);
        },
      ),
      { seed: 1, numRuns: 3000 },
    );
  });
});

describe('an .onnx_adapter as an adapter', { timeout: 60_000 }, () => {
  const base = modelFixture('llama.dynamo.dynamic').path;

  async function made(
    targets = ['q_proj', 'down_proj', 'embed_tokens'],
    more: object = {},
  ): Promise<AdapterFile> {
    const model = readModel(base);
    const { record } = await insert(model, {
      method: 'lora',
      config: { rank: 3, alpha: 5, ...more },
      targeting: { targets, rankPattern: targets.includes('down_proj') ? { down_proj: 2 } : {} },
    });
    return { record, tensors: randomParameters(record, model), digest: '' };
  }

  const write = async (name: string, tensors: ReadonlyMap<string, Tensor>, modelVersion = 1) => {
    const path = folder.path(name);
    await writeOnnxAdapter(path, tensors, { force: true, modelVersion });
    return path;
  };

  it.each(['own', 'olive', 'olive-attn', 'genai'])('folds under the names %s', async (names) => {
    const adapter = await made();
    const path = await write(`${names}.onnx_adapter`, await servingTensors(adapter, { names }));
    const out = folder.path(`${names}.onnx`);
    const report = await fold({ model: base, adapter: path, out });
    expect(report.proof?.holds).toBe(true);
    const unfolded = readModel(base);
    attachAdapter(unfolded, adapter.record, adapter.tensors);
    expect((await verify(unfolded, out)).worst.relative).toBeLessThan(1e-5);
  });

  it('reads scales of their own, and leaves modules without rank out', async () => {
    const adapter = await made();
    const tensors = await servingTensors(adapter, { names: 'olive', scale: 'input' });
    const q = 'model.layers.0.self_attn.q_proj';
    tensors.set(`${q}.lora_A.weight`, tensorOfBytes('float32', [32, 0], new Uint8Array(0)));
    tensors.set(`${q}.lora_B.weight`, tensorOfBytes('float32', [0, 32], new Uint8Array(0)));
    const read = await readAdapter(await write('scales.onnx_adapter', tensors), { base: readModel(base) });
    const paths = read.record.sites.map(({ path }) => path);
    expect(paths).toHaveLength(adapter.record.sites.length - 1);
    expect(paths).not.toContain(q);
    const key = 'model.layers.1.self_attn.q_proj.lora_B';
    const raw = numbersOf(await loadTensor(adapter.tensors.get(key)!));
    // 5/3 as the file holds it.
    const scale = Math.fround(5 / 3);
    expect(Array.from(numbersOf(await loadTensor(read.tensors.get(key)!)))).toEqual(
      Array.from(raw, (value) => Math.fround(value * scale)),
    );
  });

  it('stores scales in the type that the graph of a half-precision model takes', async () => {
    const { record, ...adapter } = await made();
    const sites = record.sites.map((site) => ({
      ...site,
      params: Object.fromEntries(
        Object.entries(site.params).map(([role, param]) => [role, { ...param, dtype: 'float16' as const }]),
      ),
    }));
    const half = { ...record, sites };
    const tensors = await servingTensors({ ...adapter, record: half }, { scale: 'input' });
    for (const { name, dtype } of servingInputs(half, { scale: 'input' }))
      expect([name, tensors.get(name)?.dtype]).toEqual([name, dtype]);
  });

  it('is matched by a map', async () => {
    const tensors = await servingTensors(await made(['q_proj']), { names: 'olive' });
    const other = new Map(
      [...tensors].map(([name, tensor]) => [name.replace('model.layers', 'decoder.h'), tensor]),
    );
    const path = await write('mapped.onnx_adapter', other);
    await expect(readAdapter(path, { base: readModel(base) })).rejects.toMatchObject({ code: 'E_NO_MATCH' });
    const read = await readAdapter(path, { base: readModel(base), map: { 'decoder.h': 'model.layers' } });
    expect(read.record.sites).toHaveLength(2);
  });

  it('is refused where it does not fit', async () => {
    const tensors = await servingTensors(await made(['q_proj']), { names: 'olive' });
    const [A, B] = [...tensors.keys()] as [string, string];
    const refusal = async (change: (tensors: Map<string, Tensor>) => void) => {
      const changed = new Map(tensors);
      change(changed);
      return readAdapter(await write('refused.onnx_adapter', changed), { base: readModel(base) }).then(
        () => undefined,
        (error: Error) => error,
      );
    };
    const zeros = (...dims: number[]) =>
      tensorOfBytes('float32', dims, new Uint8Array(4 * dims.reduce((a, b) => a * b, 1)));
    const invalid = (message: RegExp) => ({
      code: 'E_INVALID_DATA',
      message: expect.stringMatching(message),
    });
    expect(await refusal((changed) => changed.delete(B))).toMatchObject(invalid(/lacks lora_B.weight/));
    expect(await refusal((changed) => changed.set(A, zeros(31, 3)))).toMatchObject(
      invalid(/takes \[32, 3\]/),
    );
    expect(await refusal((changed) => changed.set(A, zeros(32, 4)))).toMatchObject(invalid(/do not fit/));
    expect(
      await refusal((changed) => {
        changed.set(A, zeros(3, 32));
        changed.set(B, zeros(32, 3));
      }),
    ).toMatchObject(invalid(/32, 3/));
    expect(
      await refusal((changed) => changed.set(A.replace('q_proj', 'x_proj'), zeros(32, 3))),
    ).toMatchObject({
      code: 'E_NO_MATCH',
      message: expect.stringContaining('q_proj'),
    });
    expect(await refusal((changed) => changed.clear())).toMatchObject(invalid(/holds no adapter/));
    await expect(readAdapter(await write('alone.onnx_adapter', tensors))).rejects.toMatchObject({
      code: 'E_USAGE',
    });
    writeFileSync(
      folder.path('cut.onnx_adapter'),
      readFileSync(folder.path('alone.onnx_adapter')).subarray(0, 99),
    );
    await expect(
      readAdapter(folder.path('cut.onnx_adapter'), { base: readModel(base) }),
    ).rejects.toMatchObject({ code: 'E_INVALID_DATA' });
  });

  it('knows its base by a fingerprint', async () => {
    const adapter = await made(['q_proj']);
    const own = folder.path('own.safetensors');
    await writeAdapter(own, adapter.record, adapter.tensors);
    const path = folder.path('fingerprint.onnx_adapter');
    const exported = await cliJson('export', own, '--format', 'onnx_adapter', '--names', 'genai', '-o', path);
    expect(exported.status).toBe(0);
    const version = readOnnxAdapter(path).modelVersion;
    expect(version).toBe(fingerprint(adapter.record.base));
    expect(version).toBeGreaterThanOrEqual(2 ** 30);
    const out = folder.path('fingerprint.onnx');
    expect((await cli('fold', base, '--adapter', path, '-o', out)).status).toBe(0);
    const wrong = await write('wrong.onnx_adapter', readOnnxAdapter(path).tensors, version ^ 1);
    const refused = await cli('fold', base, '--adapter', wrong, '-o', out, '--force');
    expect(refused).toMatchObject({ status: 3, stderr: expect.stringContaining('other weights') });
    expect((await cli('fold', base, '--adapter', wrong, '--any-base', '-o', out, '--force')).status).toBe(0);
  });
});
