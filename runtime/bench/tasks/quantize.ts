/** Writes a quantised base; not measured. */
import { z } from 'zod';
import { FORMATS, type FormatId } from '../../../passes/quantize/formats.js';
import { quantize } from '../../quantize/quantize.js';
import type { BenchTask } from '../task.js';

const ids = Object.keys(FORMATS) as [FormatId, ...FormatId[]];

/** All linears but the head, in the format's own blocks: `relativeError` of the worst weight. */
export const quantizeBase: BenchTask = async (input) => {
  const { model, out, format } = z
    .object({ model: z.string(), out: z.string(), format: z.enum(ids) })
    .parse(input);
  const { tensors } = await quantize({ model, out, format, write: { externalData: 'file' } });
  const errors = tensors.map(({ accuracy }) => accuracy?.relativeError ?? 0);
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes[1], 0);
  return { relativeError: Math.max(...errors), weightMiB: bytes / 2 ** 20 };
};
