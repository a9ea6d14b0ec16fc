/** Data files by their names: JSON Lines, safetensors, plain text. */
import { existsSync } from 'node:fs';
import { extname } from 'node:path';
import { fail } from '../../src/errors.js';
import type { BatchInputSpec } from './batch.js';
import type { Dataset } from './dataset.js';
import { readJsonl, tensorRecords } from './jsonl.js';
import { TOKEN_INPUTS } from './standard-inputs.js';
import { loadTensorData } from './tensors.js';
import { isTextRecord, loadPlainText, type TextOptions, type TextTarget, textRecords } from './text.js';
import { loadTokenizer, type TextTokenizer } from './tokenizer.js';

export interface LoadOptions {
  /** Inputs of the step graph. */
  readonly batch: readonly BatchInputSpec[];
  /** Loss of the step graph: says whether labels are the tokens themselves. */
  readonly loss: string;
  /** Tokenizer, or its path; needed for texts only. */
  readonly tokenizer?: TextTokenizer | string;
  /** Longest token sequence; also the block length of plain texts. Default: the graph's fixed length, or 128. */
  readonly maxLength?: number;
  readonly classes?: readonly string[];
}

/** Losses whose labels are the tokens of the text, shifted inside the graph. */
const SELF_LABELED: ReadonlySet<string> = new Set(['causal-lm']);

const READERS: Readonly<Record<string, (path: string, options: LoadOptions) => Promise<Dataset>>> = {
  '.jsonl': loadJsonl,
  '.ndjson': loadJsonl,
  '.safetensors': async (path) => loadTensorData(path),
  '.txt': loadText,
  '.md': loadText,
};

/** Loads a data file. @throws E_IO, E_USAGE (unknown kind, no tokenizer), E_INVALID_DATA with file and line. */
export async function loadDataset(path: string, options: LoadOptions): Promise<Dataset> {
  if (!existsSync(path))
    fail('E_IO', { message: 'The data file does not exist', where: path, remedy: 'Check the path.' });
  const reader = READERS[extname(path).toLowerCase()];
  if (reader === undefined)
    fail('E_USAGE', {
      message: `Data files end in ${Object.keys(READERS).join(', ')}`,
      where: path,
      remedy: 'Rename or convert the file.',
    });
  return reader(path, options);
}

async function loadText(path: string, options: LoadOptions): Promise<Dataset> {
  return loadPlainText(path, textOptions(path, options));
}

async function loadJsonl(path: string, options: LoadOptions): Promise<Dataset> {
  const records = await readJsonl(path);
  return records.some(isTextRecord)
    ? textRecords(path, records, textOptions(path, options))
    : tensorRecords(path, records);
}

function textOptions(path: string, options: LoadOptions): TextOptions {
  const { tokenizer, batch } = options;
  if (tokenizer === undefined)
    fail('E_USAGE', {
      message: 'The data is text, and there is no tokenizer',
      where: path,
      remedy: 'Give one: --tokenizer path/to/tokenizer.json',
    });
  const tokens = batch.find((spec) => TOKEN_INPUTS.includes(spec.name));
  if (tokens === undefined)
    fail('E_USAGE', {
      message: 'The data is text, but the model reads no tokens',
      where: path,
      remedy: `Give tensors for ${batch.map((spec) => spec.name).join(', ')}.`,
    });
  const fixed = tokens.shape[1];
  const maxLength = options.maxLength ?? (typeof fixed === 'number' ? fixed : 128);
  // Labels that are the next tokens need two of them.
  const least = SELF_LABELED.has(options.loss) ? 2 : 1;
  if (!(Number.isInteger(maxLength) && maxLength >= least))
    fail('E_USAGE', {
      message: `A length of ${maxLength} tokens was asked for`,
      remedy: `Use a whole number, at least ${least}.`,
    });
  if (typeof fixed === 'number' && maxLength > fixed)
    fail('E_USAGE', {
      message: `The graph takes sequences of ${fixed} tokens, a length of ${maxLength} was asked for`,
      remedy: `Use at most ${fixed}.`,
    });
  return {
    tokenizer: typeof tokenizer === 'string' ? loadTokenizer(tokenizer) : tokenizer,
    target: targetOf(tokens.name, options),
    maxLength,
    ...(options.classes === undefined ? {} : { classes: options.classes }),
  };
}

function targetOf(tokens: string, { batch, loss }: LoadOptions): TextTarget {
  const label = batch.find((spec) => spec.role === 'label');
  return {
    tokens,
    segments: batch.find((spec) => spec.name === 'segment_ids')?.name ?? 'token_type_ids',
    label: label?.name,
    selfLabel: SELF_LABELED.has(loss) ? (label?.padding ?? -100) : undefined,
  };
}
