/** Several writes under way on a disk that is full: the error says so, whichever of them meets it first. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { atomicWrite } from '../../src/onnx/index.js';
import { scratch } from './support.js';

const PART = 1 << 20;

// The first write gets half of its bytes down, and later than the second one finds the disk full.
vi.mock('node:fs', async (original) => {
  const write = Object.assign(() => {}, {
    [Symbol.for('nodejs.util.promisify.custom')]: async (
      _fd: number,
      _bytes: Uint8Array,
      _offset: number,
      length: number,
      at: number,
    ) => {
      if (at > 0)
        throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      await new Promise((resolve) => setTimeout(resolve, 20));
      return { bytesWritten: length / 2 };
    },
  });
  return { ...(await original<typeof import('node:fs')>()), write };
});

it('names the full disk, and leaves nothing behind', async () => {
  const folder = scratch();
  const broken = atomicWrite(join(folder, 'a'), {}, async (sink) => {
    const writes = [sink.write(new Uint8Array(PART)), sink.write(new Uint8Array(PART))];
    const results = await Promise.allSettled(writes);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  });
  await expect(broken).rejects.toMatchObject({
    code: 'E_IO',
    remedy: expect.stringContaining('Free some space'),
  });
  expect(readdirSync(folder)).toEqual([]);
});
