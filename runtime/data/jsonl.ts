/** JSON Lines: one object per line, its fields numbers, booleans or nested arrays of them; or texts, see `text.ts`. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fail } from '../../src/errors.js';
import { reason } from '../../src/onnx/source.js';
import { duplicateKey } from '../json-keys.js';
import { compact, type Dataset, type Example, type ExampleTensor } from './dataset.js';

export interface JsonRecord {
  readonly fields: Readonly<Record<string, unknown>>;
  /** `file:line`. */
  readonly where: string;
}

/** All records of a file; blank lines are skipped. @throws E_IO, E_INVALID_DATA with file and line. */
export async function readJsonl(path: string): Promise<JsonRecord[]> {
  const records: JsonRecord[] = [];
  let line = 0;
  try {
    const lines = createInterface({
      input: createReadStream(path, 'utf8'),
      crlfDelay: Number.POSITIVE_INFINITY,
    });
    for await (const text of lines) {
      line++;
      if (text.trim() === '') continue;
      records.push({ fields: parseLine(text, `${path}:${line}`), where: `${path}:${line}` });
    }
  } catch (cause) {
    if (cause instanceof Error && 'syscall' in cause)
      fail('E_IO', { message: `Cannot read the data: ${reason(cause)}`, where: path, cause });
    throw cause;
  }
  if (records.length === 0)
    fail('E_INVALID_DATA', {
      message: 'The data file has no examples',
      where: path,
      remedy: 'Put one JSON object on each line.',
    });
  return records;
}

function parseLine(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch (cause) {
    return fail('E_INVALID_DATA', {
      message: `The line is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`,
      where,
      remedy: 'Put one JSON object on each line.',
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return fail('E_INVALID_DATA', {
      message: 'The line is no JSON object',
      where,
      remedy: 'Write {"tensor name": values, …}.',
    });
  const twice = duplicateKey(text);
  if (twice !== undefined)
    fail('E_INVALID_DATA', {
      message: `The line has two entries '${twice}'`,
      where,
      remedy: 'Keep one of them.',
    });
  return value as Record<string, unknown>;
}

/** Records as examples of named tensors. */
export function tensorRecords(path: string, records: readonly JsonRecord[]): Dataset {
  const examples = records.map(({ fields, where }): Example => {
    const tensors = new Map<string, ExampleTensor>();
    for (const [name, value] of Object.entries(fields)) tensors.set(name, nestedTensor(value, name, where));
    return { tensors, where };
  });
  return { source: path, length: examples.length, example: (index) => examples[index] as Example };
}

/** More axes than any model has; bounds the recursion. */
const MAX_RANK = 32;

/** A tensor of nested arrays, `[[1, 2], [3, 4]]` being 2×2. */
export function nestedTensor(value: unknown, name: string, where: string): ExampleTensor {
  const dims: number[] = [];
  for (let level = value; Array.isArray(level); level = level[0]) dims.push(level.length);
  if (dims.length > MAX_RANK) bad(`has ${dims.length} axes`, `Nest at most ${MAX_RANK} arrays.`);
  const values: number[] = [];
  collect(value, 0);
  return { dims, values: compact(values) };

  function collect(item: unknown, depth: number): void {
    if (Array.isArray(item)) {
      if (depth >= dims.length || item.length !== dims[depth])
        bad(
          `is ragged: an array of length ${item.length} where ${dims[depth] ?? 'a number'} is expected`,
          'Give all rows of one tensor the same length; examples may differ in length, rows may not.',
        );
      for (const child of item) collect(child, depth + 1);
    } else if (depth !== dims.length)
      bad('is ragged: a number where an array is expected', 'Nest all rows alike.');
    else if (typeof item === 'number') values.push(item);
    else if (typeof item === 'boolean') values.push(item ? 1 : 0);
    else
      bad(
        `holds ${JSON.stringify(item)?.slice(0, 40)}, which is no number`,
        'Use numbers or booleans; texts go under "text" and need a tokenizer.',
      );
  }

  function bad(message: string, remedy: string): never {
    return fail('E_INVALID_DATA', { message: `Tensor '${name}' ${message}`, where, remedy });
  }
}
