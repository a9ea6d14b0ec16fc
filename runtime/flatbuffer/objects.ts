/** A flatbuffer as a tree of plain objects, before it has positions. */
import type { TensorData } from '../../src/tensor.js';

export type Scalar =
  | { readonly kind: 'int32' | 'float32'; readonly value: number }
  | { readonly kind: 'int64'; readonly value: bigint }
  | { readonly kind: 'bool'; readonly value: boolean };

export interface TableNode {
  readonly kind: 'table';
  /** By field id; absent fields are left out and read as their defaults. */
  readonly fields: ReadonlyMap<number, Scalar | Reference>;
}

/** What a field or a vector points to. */
export type Reference =
  | TableNode
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'tables'; readonly items: readonly TableNode[] }
  | { readonly kind: 'int64s'; readonly items: readonly number[] }
  /** Bytes wherever they are; written last, piece by piece. */
  | { readonly kind: 'bytes'; readonly data: TensorData };

/** A table of the fields that are there. */
export function table(fields: Readonly<Record<number, Scalar | Reference | undefined>>): TableNode {
  const present = Object.entries(fields).flatMap(([id, field]): [number, Scalar | Reference][] =>
    field === undefined ? [] : [[Number(id), field]],
  );
  return { kind: 'table', fields: new Map(present) };
}

export const int32 = (value: number): Scalar => ({ kind: 'int32', value });
export const float32 = (value: number): Scalar => ({ kind: 'float32', value });
export const int64 = (value: bigint | number): Scalar => ({ kind: 'int64', value: BigInt(value) });
/** False is the default of every flag, and is left out. */
export const flag = (value: boolean): Scalar | undefined => (value ? { kind: 'bool', value } : undefined);
export const text = (value: string): Reference => ({ kind: 'string', value });
export const tables = (items: readonly TableNode[]): Reference => ({ kind: 'tables', items });
export const int64s = (items: readonly number[]): Reference => ({ kind: 'int64s', items });
export const bytes = (data: TensorData): Reference => ({ kind: 'bytes', data });
