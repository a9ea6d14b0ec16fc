/**
 * Encoding by comparison with the original. Each field that the graph models is given as it should be now; fields that
 * are as they were keep their bytes and place, changed ones are replaced where they first stood, and fields that the
 * graph does not model stay untouched. A message without a change is a copy.
 */

import { decodeEntries } from './decode-tensor.js';
import { ENTRY } from './fields.js';
import { concat, type Encoded, intField, messageField, Rope, ropeOfFields, stringField } from './rope.js';
import type { Message, Parsed } from './wire.js';

export class Rewriter {
  readonly parsed: Parsed | undefined;
  readonly #groups = new Map<number, { readonly rope: Rope; readonly same: boolean }>();

  constructor(readonly origin: Message | undefined) {
    this.parsed = origin?.parse();
  }

  /** All occurrences of a field. */
  set(number: number, rope: Rope): this {
    const original = ropeOfFields(this.parsed?.all(number) ?? []);
    this.#groups.set(number, { rope, same: rope.sameSpans(original) });
    return this;
  }

  keep(number: number): this {
    return this.set(number, ropeOfFields(this.parsed?.all(number) ?? []));
  }

  drop(...numbers: number[]): this {
    for (const number of numbers) this.set(number, new Rope());
    return this;
  }

  /** A string field; '' and undefined are the same as absence. */
  string(number: number, value: string | undefined): this {
    const now = value ?? '';
    if ((this.parsed?.string(number) ?? '') === now) return this.keep(number);
    return this.set(number, now === '' ? new Rope() : stringField(number, now));
  }

  /** A string field that is equal when `normal` of both is. */
  normalString(number: number, value: string, normal: (text: string | undefined) => string): this {
    if (this.parsed !== undefined && normal(this.parsed.string(number)) === value) return this.keep(number);
    return this.string(number, value);
  }

  strings(number: number, values: readonly string[]): this {
    const before = this.parsed?.strings(number) ?? [];
    if (before.length === values.length && before.every((text, i) => text === values[i]))
      return this.keep(number);
    return this.set(number, concat(values.map((text) => stringField(number, text))));
  }

  /** An integer field that is left out at `absent`. */
  int(number: number, value: number | bigint, absent = 0n): this {
    const now = BigInt(value);
    if ((this.parsed?.int(number) ?? absent) === now) return this.keep(number);
    return this.set(number, now === absent ? new Rope() : intField(number, now));
  }

  /** Dims and the like: one varint field per value. */
  ints(number: number, values: readonly (number | bigint)[]): this {
    const before = this.parsed?.ints(number) ?? [];
    if (before.length === values.length && before.every((n, i) => n === BigInt(values[i] as number | bigint)))
      return this.keep(number);
    return this.set(number, concat(values.map((n) => intField(number, n))));
  }

  messages(number: number, messages: readonly Encoded[]): this {
    return this.set(number, concat(messages.map((m) => messageField(number, m))));
  }

  /** Key-value entries (`StringStringEntryProto`); entries that did not change keep their bytes. */
  entries(number: number, values: ReadonlyMap<string, string>): this {
    return this.keyed(
      number,
      values,
      () => (this.parsed === undefined ? new Map() : decodeEntries(this.parsed, number)),
      (entry) => [entry.string(ENTRY.key) ?? '', entry.string(ENTRY.value) ?? ''],
      (key, value) => concat([stringField(ENTRY.key, key), stringField(ENTRY.value, value)]),
    );
  }

  /** Messages that are pairs of a key and a value, as a map. */
  keyed<T>(
    number: number,
    values: ReadonlyMap<string, T>,
    before: () => ReadonlyMap<string, T>,
    read: (entry: Parsed) => [string, T],
    write: (key: string, value: T) => Rope,
  ): this {
    if (equalMaps(before(), values)) return this.keep(number);
    const originals = new Map<string, { value: T; message: Message }>();
    for (const message of this.parsed?.subs(number) ?? []) {
      const [key, value] = read(message.parse());
      originals.set(key, { value, message });
    }
    return this.messages(
      number,
      [...values].map(([key, value]) => {
        const original = originals.get(key);
        return original?.value === value
          ? { body: new Rope(), origin: original.message, same: true }
          : { body: write(key, value), origin: undefined, same: false };
      }),
    );
  }

  done(): Encoded {
    const { parsed, origin } = this;
    if (parsed === undefined || origin === undefined)
      return { body: concat([...this.#groups.values()].map((g) => g.rope)), origin: undefined, same: false };
    const body = new Rope();
    if ([...this.#groups.values()].every((g) => g.same)) {
      for (const span of origin.spans) body.span(span);
      return { body, origin, same: true };
    }
    const written = new Set<number>();
    for (const field of parsed.fields) {
      const group = this.#groups.get(field.number);
      if (group === undefined || group.same) body.span(field);
      else if (!written.has(field.number)) body.rope(group.rope);
      written.add(field.number);
    }
    for (const [number, group] of this.#groups) if (!written.has(number)) body.rope(group.rope);
    return { body, origin, same: false };
  }
}

function equalMaps<T>(a: ReadonlyMap<string, T>, b: ReadonlyMap<string, T>): boolean {
  if (a.size !== b.size) return false;
  const others = [...b];
  return [...a].every(([key, value], i) => others[i]?.[0] === key && others[i]?.[1] === value);
}
