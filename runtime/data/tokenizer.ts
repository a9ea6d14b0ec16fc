/** Tokenizers from `tokenizer.json` files, by `@huggingface/tokenizers`. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { fail } from '../../src/errors.js';
import { reason } from '../../src/onnx/source.js';

export interface Encoded {
  readonly ids: readonly number[];
  /** Segment of each token: 0 for the first text, 1 for the second. */
  readonly typeIds: readonly number[];
}

export interface TextTokenizer {
  /** Tokens with the special tokens of the model around them. */
  encode(text: string, pair?: string): Encoded;
  /** Tokens of the bare text. */
  encodePlain(text: string): readonly number[];
  decode(ids: readonly number[]): string;
  /** Special tokens that `encode` puts behind the text; truncation keeps them. */
  readonly suffixLength: number;
  readonly padId: number;
  readonly eosId: number | undefined;
}

/** Loads `tokenizer.json` (a file, or a folder that holds one) and the `tokenizer_config.json` next to it, if any. */
export function loadTokenizer(path: string): TextTokenizer {
  const file = isFolder(path) ? join(path, 'tokenizer.json') : path;
  const definition = readJson(file);
  const configFile = join(dirname(file), 'tokenizer_config.json');
  const config = existsSync(configFile) ? readJson(configFile) : {};
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(definition, config);
  } catch (cause) {
    return fail('E_INVALID_DATA', {
      message: `The tokenizer cannot be used: ${reason(cause)}`,
      where: file,
      remedy: 'Give the tokenizer.json of a fast tokenizer.',
      cause,
    });
  }
  const idOf = (token: unknown): number | undefined => {
    const text = typeof token === 'object' && token !== null && 'content' in token ? token.content : token;
    return typeof text === 'string' ? tokenizer.token_to_id(text) : undefined;
  };
  const eosId = idOf(config.eos_token);
  const padding = definition.padding;
  const declared =
    typeof padding === 'object' && padding !== null && 'pad_id' in padding ? padding.pad_id : undefined;
  return {
    suffixLength: suffixLength(tokenizer),
    encode(text, pair) {
      const { ids, token_type_ids: typeIds } = tokenizer.encode(text, {
        text_pair: pair ?? null,
        return_token_type_ids: true,
      });
      return { ids, typeIds: typeIds ?? ids.map(() => 0) };
    },
    encodePlain: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => tokenizer.decode([...ids], { skip_special_tokens: true }),
    padId: idOf(config.pad_token) ?? (typeof declared === 'number' ? declared : (eosId ?? 0)),
    eosId,
  };
}

/** Tokens behind the last token of the bare text when special tokens are added. */
function suffixLength(tokenizer: Tokenizer): number {
  const plain: number[] = tokenizer.encode('a', { add_special_tokens: false }).ids;
  const full: number[] = tokenizer.encode('a').ids;
  const start = full.findIndex((_, i) => plain.every((id, j) => full[i + j] === id));
  return start < 0 ? 0 : full.length - start - plain.length;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function readJson(file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    return fail(cause instanceof SyntaxError ? 'E_INVALID_DATA' : 'E_IO', {
      message: `Cannot read the tokenizer: ${reason(cause)}`,
      where: file,
      remedy: 'Give the path of a tokenizer.json.',
      cause,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return fail('E_INVALID_DATA', { message: 'The tokenizer file is no JSON object', where: file });
  return value as Record<string, unknown>;
}
