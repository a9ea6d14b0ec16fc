/** Files that are read by position, here and in other threads. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { digestFile } from '../../runtime/digest.js';
import { FileSource } from '../../src/onnx/source.js';

const folder = mkdtempSync(join(tmpdir(), 'source-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Descriptors of this process, where the system says. */
function descriptors(): number {
  return process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0;
}

test('reads that overlap with evictions and closes get the right bytes, and every descriptor is closed once', async () => {
  // More files than stay open, and reads long enough to be done elsewhere.
  const length = 1 << 17;
  const before = descriptors();
  const files = Array.from({ length: 60 }, (_, i) => {
    const bytes = randomBytes(length);
    const path = join(folder, `file-${i}`);
    writeFileSync(path, bytes);
    return { bytes, source: new FileSource(path) };
  });
  const reads = Array.from({ length: 600 }, async (_, i) => {
    const { bytes, source } = files[(7 * i) % files.length]!;
    const start = (i * 1009) % 4096;
    const target = new Uint8Array(length - start);
    const read = source.readAside(target, start);
    if (i % 11 === 0) source.close();
    await read;
    return Buffer.compare(target, bytes.subarray(start)) === 0;
  });
  expect((await Promise.all(reads)).every((same) => same)).toBe(true);
  for (const { source } of files) source.close();
  expect(descriptors()).toBe(before);
});

test('a file that became shorter is an error there, too', async () => {
  const path = join(folder, 'short');
  writeFileSync(path, new Uint8Array(1 << 18));
  const source = new FileSource(path);
  truncateSync(path, 1 << 17);
  await expect(source.readAside(new Uint8Array(1 << 18), 0)).rejects.toMatchObject({
    code: 'E_IO',
    message: expect.stringContaining('shorter'),
  });
  source.close();
});

test('timers get their turn while a large file is hashed', async () => {
  const path = join(folder, 'large');
  writeFileSync(path, '');
  truncateSync(path, 200 << 20);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const digest = await digestFile(path);
  clearInterval(timer);
  expect(ticks).toBeGreaterThan(0);
  expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
});
