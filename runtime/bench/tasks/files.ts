/** Files: copies, and decoding and encoding whole models. */
import { copyFile, open } from 'node:fs/promises';
import { z } from 'zod';
import { readModel, writeModel } from '../../../src/onnx/index.js';
import { type BenchTask, timed } from '../task.js';

/** Copies files and flushes them to the disk, as a save does: `copyMs`. */
export const copy: BenchTask = async (input) => {
  const { files } = z.object({ files: z.array(z.object({ from: z.string(), to: z.string() })) }).parse(input);
  const { ms } = await timed(async () => {
    for (const { from, to } of files) {
      await copyFile(from, to);
      const file = await open(to, 'r+');
      await file.sync();
      await file.close();
    }
  });
  return { copyMs: ms };
};

/** Decodes a model and writes it elsewhere: `decodeMs`, `writeMs`. */
export const rewrite: BenchTask = async (input) => {
  const { from, to, externalData, weights } = z
    .object({
      from: z.string(),
      to: z.string(),
      externalData: z.enum(['keep', 'inline', 'file']),
      weights: z.enum(['link', 'copy']),
    })
    .parse(input);
  const decoded = await timed(() => readModel(from));
  const written = await timed(() => writeModel(decoded.value, to, { externalData, weights }));
  return { decodeMs: decoded.ms, writeMs: written.ms };
};
