/** Protobuf by hand (odd encodings included), and the model files that tests run over. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterEach } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
export const GOLDEN = join(ROOT, '../shared/golden');
export const hasGolden = existsSync(GOLDEN);

/** All ONNX files under `fixtures/` and, where it is present, the folder of golden files. */
export function modelFiles(): { name: string; path: string }[] {
  const files: { name: string; path: string }[] = [];
  for (const base of [join(ROOT, 'fixtures'), ...(hasGolden ? [GOLDEN] : [])]) {
    if (!existsSync(base)) continue;
    for (const entry of readdirSync(base, { recursive: true, encoding: 'utf8' }).sort())
      if (entry.endsWith('.onnx')) {
        const path = join(base, entry);
        files.push({ name: relative(ROOT, path), path });
      }
  }
  return files;
}

/** A folder that is removed after the test. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'peft-compile-test-'));
  folders.push(folder);
  return folder;
}
const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A varint; `pad` adds that many needless bytes (legal, and never written by a protobuf library). */
export function v(value: number | bigint, pad = 0): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  } while (rest > 0n);
  for (let i = 0; i < pad; i++) bytes.push(0x80);
  bytes[bytes.length - 1]! &= 0x7f;
  return Buffer.from(bytes);
}

export const int = (field: number, value: number | bigint, pad = 0): Buffer =>
  Buffer.concat([v(field * 8, pad), v(value, pad)]);

/** A length-delimited field: text, bytes, or the fields of a submessage. */
export function len(field: number, body: string | Uint8Array | readonly Uint8Array[], pad = 0): Buffer {
  const bytes =
    typeof body === 'string' ? Buffer.from(body) : body instanceof Uint8Array ? body : Buffer.concat(body);
  return Buffer.concat([v(field * 8 + 2, pad), v(bytes.length, pad), bytes]);
}

export function f32(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([v(field * 8 + 5), bytes]);
}

export function f64(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([v(field * 8 + 1), bytes]);
}

/** `ValueInfoProto` of a tensor. */
export function info(name: string, dtype: number, dims: readonly (number | string)[] = []): Buffer {
  const shape = dims.map((d) => len(1, typeof d === 'number' ? [int(1, d)] : [len(2, d)]));
  return Buffer.concat([len(1, name), len(2, [len(1, [int(1, dtype), len(2, shape)])])]);
}

export function node(
  op: string,
  inputs: string[],
  outputs: string[],
  extra: readonly Uint8Array[] = [],
): Buffer {
  return Buffer.concat([
    ...inputs.map((n) => len(1, n)),
    ...outputs.map((n) => len(2, n)),
    len(4, op),
    ...extra,
  ]);
}

/** `ModelProto` with one opset around the fields of a graph. */
export function model(graph: readonly Uint8Array[], extra: readonly Uint8Array[] = []): Buffer {
  return Buffer.concat([int(1, 10), len(8, [len(1, ''), int(2, 20)]), len(7, graph), ...extra]);
}
