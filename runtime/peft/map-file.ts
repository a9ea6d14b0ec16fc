/** A user's map: a JSON object of module in PEFT to module of the model. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { fail } from '../../src/errors.js';
import { reason } from '../../src/onnx/source.js';
import { describeIssues } from '../../src/zod-issues.js';

const schema = z.record(z.string().min(1), z.string());

const SHAPE = 'Write {"module in PEFT": "module in peft-compile inspect"}; beginnings of paths do, too';

/** Throws E_IO and E_INVALID_DATA. */
export function readModuleMap(path: string): Record<string, string> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    return fail('E_IO', {
      message: `Cannot read the map: ${reason(cause)}`,
      where: path,
      remedy: 'Check the path and its permissions.',
      cause,
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    return fail('E_INVALID_DATA', {
      message: `Not valid JSON: ${reason(cause)}`,
      where: path,
      remedy: SHAPE,
      cause,
    });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  return fail('E_INVALID_DATA', {
    message: `The map is no object of texts: ${describeIssues(parsed.error)}`,
    where: path,
    remedy: SHAPE,
  });
}
