/**
 * Texts as examples. A plain text is cut into blocks of tokens; records are
 * `{"text"}` or `{"prompt", "completion"}` for language models, `{"text", "label"}` and `{"text", "text_pair", "label"}`
 * for classification and regression.
 */
import { readFileSync } from 'node:fs';
import { fail } from '../../src/errors.js';
import { reason } from '../../src/onnx/source.js';
import { compact, type Dataset, type Example, type ExampleTensor } from './dataset.js';
import { type JsonRecord, nestedTensor } from './jsonl.js';
import type { TextTokenizer } from './tokenizer.js';

/** Names of the tensors that texts become. */
export interface TextTarget {
  readonly tokens: string;
  readonly segments: string;
  /** Input that takes the labels; undefined for a loss without labels. */
  readonly label: string | undefined;
  /** Labels are the tokens themselves, this value where they do not count; undefined when labels are given. */
  readonly selfLabel: number | undefined;
}

export interface TextOptions {
  readonly tokenizer: TextTokenizer;
  readonly target: TextTarget;
  /** Longer token sequences are cut. */
  readonly maxLength: number;
  /** Names of the classes, by index; default: the texts that occur as labels, sorted. */
  readonly classes?: readonly string[];
}

/** Whether a record is a text, not tensors. */
export function isTextRecord({ fields }: JsonRecord): boolean {
  return typeof fields.text === 'string' || typeof fields.prompt === 'string';
}

/**
 * Blocks of `maxLength` consecutive tokens of a text file; what does not fill a block at the end is dropped, unless it
 * is all there is.
 */
export function loadPlainText(path: string, { tokenizer, target, maxLength }: TextOptions): Dataset {
  if (target.selfLabel === undefined)
    fail('E_USAGE', {
      message: 'A plain text trains language models only; this loss wants labels',
      where: path,
      remedy: 'Use JSON Lines with {"text": …, "label": …}.',
    });
  const { label } = target;
  let text: string;
  try {
    text = readFileSync(path, 'utf8').replace(/^\ufeff/, '');
  } catch (cause) {
    return fail('E_IO', { message: `Cannot read the data: ${reason(cause)}`, where: path, cause });
  }
  const tokens = Int32Array.from(tokenizer.encodePlain(text));
  if (tokens.length < 2)
    fail('E_INVALID_DATA', { message: `The text has ${tokens.length} tokens`, where: path });
  const blocks = Math.max(1, Math.floor(tokens.length / maxLength));
  return {
    source: path,
    length: blocks,
    example: (index) => {
      const values = tokens.subarray(index * maxLength, (index + 1) * maxLength);
      const ids: ExampleTensor = { dims: [values.length], values };
      return {
        where: `${path}, block ${index}`,
        tensors: new Map([[target.tokens, ids], ...(label === undefined ? [] : [[label, ids] as const])]),
      };
    },
  };
}

/** Text records as examples; every line is checked and tokenized at once. */
export function textRecords(path: string, records: readonly JsonRecord[], options: TextOptions): Dataset {
  const classes = options.classes ?? textLabels(records);
  const examples = records.map((record) => textExample(record, classes, options));
  return {
    source: path,
    length: examples.length,
    example: (index) => examples[index] as Example,
    ...(classes.length === 0 ? {} : { classes }),
  };
}

function textExample(
  { fields, where }: JsonRecord,
  classes: readonly string[],
  { tokenizer, target, maxLength }: TextOptions,
): Example {
  const tensors = new Map<string, ExampleTensor>();
  const put = (name: string, values: readonly number[]) =>
    tensors.set(name, { dims: [values.length], values: compact(values) });
  if (fields.prompt !== undefined) {
    const prompt = tokenizer.encodePlain(textField(fields, 'prompt', where));
    const completion = [
      ...tokenizer.encodePlain(textField(fields, 'completion', where)),
      ...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId]),
    ];
    put(target.tokens, [...prompt, ...completion].slice(0, maxLength));
    const ignored = target.selfLabel;
    if (target.label === undefined || ignored === undefined)
      return fail('E_USAGE', {
        message: 'Prompts with completions train language models only; this loss wants labels',
        where,
        remedy: 'Use {"text": …, "label": …}.',
      });
    put(target.label, [...prompt.map(() => ignored), ...completion].slice(0, maxLength));
    return { tensors, where };
  }
  const pair = fields.text_pair === undefined ? undefined : textField(fields, 'text_pair', where);
  const { ids, typeIds } = tokenizer.encode(textField(fields, 'text', where), pair);
  if (ids.length === 0) fail('E_INVALID_DATA', { message: 'The text has no tokens', where });
  const cut = <T>(items: readonly T[]) => truncate(items, maxLength, tokenizer.suffixLength);
  put(target.tokens, cut(ids));
  put(target.segments, cut(typeIds));
  if (target.label !== undefined) {
    if (fields.label !== undefined)
      tensors.set(target.label, labelTensor(fields.label, classes, target.label, where));
    else if (target.selfLabel !== undefined) put(target.label, cut(ids));
    else
      fail('E_INVALID_DATA', {
        message: 'The record has no "label", and the loss wants one',
        where,
        remedy: 'Write {"text": …, "label": …}.',
      });
  }
  return { tensors, where };
}

/** Cuts from the end of the text, not of the special tokens behind it. */
function truncate<T>(items: readonly T[], length: number, suffix: number): readonly T[] {
  if (items.length <= length) return items;
  const kept = Math.min(suffix, length);
  return [...items.slice(0, length - kept), ...items.slice(items.length - kept)];
}

function textField(fields: Readonly<Record<string, unknown>>, name: string, where: string): string {
  const value = fields[name];
  if (typeof value === 'string') return value;
  return fail('E_INVALID_DATA', {
    message: `"${name}" is ${value === undefined ? 'missing' : 'no text'}`,
    where,
    remedy: 'All records of a text file have the same fields.',
  });
}

function labelTensor(label: unknown, classes: readonly string[], name: string, where: string): ExampleTensor {
  if (typeof label !== 'string') return nestedTensor(label, name, where);
  const index = classes.indexOf(label);
  if (index < 0)
    fail('E_INVALID_DATA', {
      message: `The label "${label}" is none of the classes ${classes.join(', ')}`,
      where,
      remedy: 'Add the class, or correct the label.',
    });
  return { dims: [], values: Int32Array.of(index) };
}

function textLabels(records: readonly JsonRecord[]): string[] {
  const names = new Set<string>();
  for (const { fields } of records) if (typeof fields.label === 'string') names.add(fields.label);
  return [...names].sort();
}
