/** Operator schemas by domain, name and opset version; parsed on first use from the generated table. */
import type { DType } from '../types.js';
import { SCHEMAS, TYPE_SETS } from './schemas.generated.js';

export type FormalOption = 'single' | 'optional' | 'variadic';

/** A formal input or output. */
export interface Formal {
  readonly name: string;
  /** A type parameter (`T`) or a fixed type (`int64`, `seq(tensor(float32))`). */
  readonly type: string;
  readonly option: FormalOption;
  /** False for variadic formals whose members may differ in type (Loop, If, Scan). */
  readonly homogeneous: boolean;
}

export interface AttributeSchema {
  /** ONNX attribute type in lower case: `int`, `ints`, `float`, `tensor`, `graph`, `type_proto`, … */
  readonly type: string;
  readonly required: boolean;
  readonly default: number | string | readonly (number | string)[] | undefined;
}

export interface OpSchema {
  readonly domain: string;
  readonly op: string;
  /** First opset version with this form. */
  readonly since: number;
  readonly deprecated: boolean;
  readonly minInputs: number;
  readonly minOutputs: number;
  readonly inputs: readonly Formal[];
  readonly outputs: readonly Formal[];
  readonly attributes: ReadonlyMap<string, AttributeSchema>;
  /** Allowed types of each type parameter. */
  readonly types: ReadonlyMap<string, ReadonlySet<string>>;
}

const OPTIONS: Readonly<Record<string, Pick<Formal, 'option' | 'homogeneous'>>> = {
  '?': { option: 'optional', homogeneous: true },
  '*': { option: 'variadic', homogeneous: true },
  '~': { option: 'variadic', homogeneous: false },
};
const SINGLE: Pick<Formal, 'option' | 'homogeneous'> = { option: 'single', homogeneous: true };

function split(text: string): string[] {
  return text === '' ? [] : text.split(' ');
}

function parseFormal(text: string): Formal {
  const colon = text.indexOf(':');
  const mark = OPTIONS[text.slice(-1)];
  return {
    name: text.slice(0, colon),
    type: text.slice(colon + 1, mark === undefined ? undefined : -1),
    ...(mark ?? SINGLE),
  };
}

function parseAttribute(text: string): [string, AttributeSchema] {
  const [, name = '', type = '', required, value] = /^(\w+):(\w+)(!?)(?:=(.*))?$/.exec(text) ?? [];
  return [
    name,
    {
      type,
      required: required === '!',
      default: value === undefined ? undefined : (JSON.parse(value) as AttributeSchema['default']),
    },
  ];
}

const sets: (ReadonlySet<string> | undefined)[] = [];

function typeSet(index: number): ReadonlySet<string> {
  const known = sets[index];
  if (known !== undefined) return known;
  const set = new Set(split(TYPE_SETS[index] ?? ''));
  sets[index] = set;
  return set;
}

function parseSchema(domain: string, op: string, line: string): OpSchema {
  const [head = '', inputs = '', outputs = '', attributes = '', types = ''] = line.split('|');
  const [since, minInputs, minOutputs, deprecated] = head.split(' ');
  return {
    domain,
    op,
    since: Number(since),
    minInputs: Number(minInputs),
    minOutputs: Number(minOutputs),
    deprecated: deprecated !== undefined,
    inputs: split(inputs).map(parseFormal),
    outputs: split(outputs).map(parseFormal),
    attributes: new Map(split(attributes).map(parseAttribute)),
    types: new Map(
      split(types).map((text) => {
        const [name = '', index] = text.split('=');
        return [name, typeSet(Number(index))];
      }),
    ),
  };
}

const parsed = new Map<string, readonly OpSchema[]>();

/** All versions of an operator, oldest first; empty for operators that the table does not know. */
export function schemaHistory(domain: string, op: string): readonly OpSchema[] {
  const key = domain === '' ? op : `${domain}.${op}`;
  const known = parsed.get(key);
  if (known !== undefined) return known;
  const lines = Object.hasOwn(SCHEMAS, key) ? SCHEMAS[key]! : [];
  const history = lines.map((line) => parseSchema(domain, op, line));
  parsed.set(key, history);
  return history;
}

/** The form of an operator at an opset version; undefined when unknown or introduced later. */
export function schemaOf(domain: string, op: string, opset: number): OpSchema | undefined {
  let found: OpSchema | undefined;
  for (const schema of schemaHistory(domain, op)) {
    if (schema.since > opset) break;
    found = schema;
  }
  return found;
}

/** The formal of the i-th actual input or output; the last variadic formal covers the rest. */
export function formalAt(formals: readonly Formal[], index: number): Formal | undefined {
  const formal = formals[index];
  if (formal !== undefined) return formal;
  const last = formals.at(-1);
  return last?.option === 'variadic' ? last : undefined;
}

/** Types that a formal may take: the set of its type parameter, or its one fixed type. */
export function allowedTypes(schema: OpSchema, formal: Formal): ReadonlySet<string> {
  return schema.types.get(formal.type) ?? new Set([formal.type]);
}

/** Whether a tensor of `dtype` fits the formal. */
export function allows(schema: OpSchema, formal: Formal, dtype: DType): boolean {
  return allowedTypes(schema, formal).has(dtype);
}
