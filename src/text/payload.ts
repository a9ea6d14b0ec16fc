/** Payloads of tensors as text and back, one word per element of the typed field that the syntax fills. */
import { fail } from '../errors.js';
import { type Tensor, type TensorData, tensorOfBytes } from '../tensor.js';
import type { DType } from '../types.js';
import { dtypeWord, float32Text, float64Text, hexLiteral, quotable, quote } from './spelling.js';

interface Word {
  readonly width: number;
  print(view: DataView, offset: number): string;
  /** Writes a literal; returns false when it does not fit. */
  parse(view: DataView, offset: number, text: string): boolean;
}

function integerWord(width: 1 | 2 | 4, signed: boolean): Word {
  const bits = width * 8;
  const [min, max] = signed ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
  const name = `${signed ? 'Int' : 'Uint'}${bits}` as
    | 'Int8'
    | 'Uint8'
    | 'Int16'
    | 'Uint16'
    | 'Int32'
    | 'Uint32';
  return {
    width,
    print: (view, offset) => String(view[`get${name}`](offset, true)),
    parse(view, offset, text) {
      const value = Number(text);
      if (!/^-?\d+$/.test(text) || value < min || value > max) return false;
      view[`set${name}`](offset, value, true);
      return true;
    },
  };
}

function bigWord(signed: boolean): Word {
  const name = signed ? 'BigInt64' : 'BigUint64';
  return {
    width: 8,
    print: (view, offset) => String(view[`get${name}`](offset, true)),
    parse(view, offset, text) {
      if (!/^-?\d+$/.test(text)) return false;
      const value = BigInt(text);
      if ((signed ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value)) !== value) return false;
      view[`set${name}`](offset, value, true);
      return true;
    },
  };
}

const FLOAT32: Word = {
  width: 4,
  print: (view, offset) => float32Text(view.getFloat32(offset, true)),
  parse(view, offset, text) {
    view.setFloat32(offset, numberOf(text), true);
    return true;
  },
};

const FLOAT64: Word = {
  width: 8,
  print: (view, offset) => float64Text(view.getFloat64(offset, true)),
  parse(view, offset, text) {
    view.setFloat64(offset, numberOf(text), true);
    return true;
  },
};

/** A float literal as the syntax spells it: `inf`, `-Infinity` and `nan` in any case besides numbers. */
export function numberOf(text: string): number {
  const word = /^(-?)(inf|infinity|nan)$/i.exec(text);
  if (word === null) return Number(text);
  if (word[2]?.toLowerCase() === 'nan') return Number.NaN;
  return word[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

const BYTE = integerWord(1, false);
const SHORT = integerWord(2, false);

/** Narrow floats are written as their bit patterns and packed types byte by byte, as in `int32_data`. */
const WORDS: Readonly<Record<Exclude<DType, 'string' | 'undefined'>, Word>> = {
  float32: FLOAT32,
  complex64: FLOAT32,
  float64: FLOAT64,
  complex128: FLOAT64,
  int8: integerWord(1, true),
  int16: integerWord(2, true),
  int32: integerWord(4, true),
  int64: bigWord(true),
  uint8: BYTE,
  uint16: SHORT,
  uint32: integerWord(4, false),
  uint64: bigWord(false),
  bool: BYTE,
  float16: SHORT,
  bfloat16: SHORT,
  float8e4m3fn: BYTE,
  float8e4m3fnuz: BYTE,
  float8e5m2: BYTE,
  float8e5m2fnuz: BYTE,
  float8e8m0: BYTE,
  float4e2m1: BYTE,
  uint4: BYTE,
  int4: BYTE,
  uint2: BYTE,
  int2: BYTE,
};

function wordOf(dtype: DType): Word | undefined {
  return dtype === 'string' || dtype === 'undefined' ? undefined : WORDS[dtype];
}

/** A payload that is not in the text. Its `entries` are those of `external_data`. */
export class AbsentData implements TensorData {
  readonly byteLength: number;
  constructor(readonly entries: ReadonlyMap<string, string>) {
    this.byteLength = Number(entries.get('length') ?? 0);
  }
  read(): Uint8Array {
    return fail('E_INVALID_DATA', {
      message: 'The numbers of this tensor are not part of the text it was parsed from',
      where: this.entries.get('location') ?? 'external data',
      remedy: 'Read the model file instead of its text form',
    });
  }
}

/** Where the text says that a payload is not printed. */
export const NOT_IN_TEXT = 'not-in-text';

/** `float[2,3]` with numeric dims. */
export function tensorHead(tensor: Pick<Tensor, 'dtype' | 'dims'>): string {
  return `${dtypeWord(tensor.dtype)}${tensor.dims.length === 0 ? '' : `[${tensor.dims.join(',')}]`}`;
}

/** `{1, 2.5}` in full, or the external-data list that says where the numbers are. */
export function payloadText(tensor: Tensor, full: boolean): string {
  if (tensor.strings !== undefined) {
    return full ? `{${tensor.strings.map(stringText).join(', ')}}` : absentText(0);
  }
  const { data } = tensor;
  if (data instanceof AbsentData)
    return `[${[...data.entries].map(([k, v]) => `${quote(k)}: ${quote(v)}`).join(', ')}]`;
  const bytes = data.inline;
  const word = wordOf(tensor.dtype);
  if (!full || bytes === undefined || word === undefined) return absentText(data.byteLength);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words: string[] = [];
  for (let offset = 0; offset + word.width <= bytes.byteLength; offset += word.width)
    words.push(word.print(view, offset));
  return `{${words.join(', ')}}`;
}

function absentText(byteLength: number): string {
  return `["location": "${NOT_IN_TEXT}", "length": "${byteLength}"]`;
}

/** A quoted string, or a hex literal when the bytes are not UTF-8. */
export function stringText(bytes: Uint8Array): string {
  const text = utf8(bytes);
  return text === undefined ? hexLiteral(bytes) : quote(text);
}

/** The text of the bytes, or undefined when they are not UTF-8. */
function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** `float[2] name = {1, 2}`: a tensor as an attribute; odd names are left to the caller. */
export function tensorText(tensor: Tensor, name: string | undefined, full: boolean): string {
  const label = name === undefined || quotable(name) !== name ? '' : ` ${name}`;
  const payload = payloadText(tensor, full);
  return `${tensorHead(tensor)}${label} ${payload.startsWith('[') ? '= ' : ''}${payload}`;
}

/** Number literals to a tensor. Returns a message instead when a literal does not fit the dtype. */
export function tensorOfLiterals(
  dtype: DType,
  dims: readonly number[],
  literals: readonly string[],
): Tensor | string {
  const word = wordOf(dtype);
  if (word === undefined) return `tensors of type ${dtype} take no numbers`;
  const bytes = new Uint8Array(literals.length * word.width);
  const view = new DataView(bytes.buffer);
  for (const [i, literal] of literals.entries())
    if (!word.parse(view, i * word.width, literal)) return `${literal} is no ${dtypeWord(dtype)}`;
  return tensorOfBytes(dtype, dims, bytes);
}
