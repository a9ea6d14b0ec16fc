/** The generated table says what op_schemas.json says, and knows versions. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { allows, formalAt, schemaHistory, schemaOf } from '../../src/ops/schema.js';

interface Row {
  readonly domain: string;
  readonly op: string;
  readonly since: number;
  readonly inputs: readonly (readonly [string, string, string, number])[];
  readonly outputs: readonly (readonly [string, string, string, number])[];
  readonly attributes: Readonly<Record<string, { type: string; required: boolean; default: unknown }>>;
  readonly types: Readonly<Record<string, readonly string[]>>;
}

const rows = JSON.parse(readFileSync('fixtures/generate/op_schemas.json', 'utf8')) as Row[];

describe('schema table', () => {
  it('holds every schema of the dump', () => {
    for (const row of rows) {
      const schema = schemaOf(row.domain, row.op, row.since)!;
      expect(schema.since).toBe(row.since);
      for (const [formals, expected] of [
        [schema.inputs, row.inputs],
        [schema.outputs, row.outputs],
      ] as const)
        expect(
          formals.map((f) => [f.type, f.option[0], f.option === 'variadic' ? Number(f.homogeneous) : 1]),
        ).toEqual(
          expected.map(([, type, option, homogeneous]) => [type, option, option === 'v' ? homogeneous : 1]),
        );
      expect(Object.fromEntries(schema.attributes)).toEqual(
        Object.fromEntries(
          Object.entries(row.attributes).map(([name, a]) => [
            name,
            { ...a, default: a.default ?? undefined },
          ]),
        ),
      );
      for (const [name, types] of Object.entries(row.types))
        expect([...schema.types.get(name)!].sort()).toEqual([...types].sort());
    }
  });

  it('finds the form of an opset', () => {
    expect(schemaOf('', 'ReduceSum', 12)!.attributes.has('axes')).toBe(true);
    expect(schemaOf('', 'ReduceSum', 13)!.inputs).toHaveLength(2);
    expect(schemaOf('', 'Gelu', 19)).toBeUndefined();
    expect(schemaHistory('', 'NoSuchOperator')).toEqual([]);
    expect(schemaHistory('', 'constructor')).toEqual([]);
  });

  it('knows optional and variadic formals and their types', () => {
    const concat = schemaOf('', 'Concat', 13)!;
    expect(formalAt(concat.inputs, 5)!.option).toBe('variadic');
    const clip = schemaOf('', 'Clip', 13)!;
    expect(clip.inputs.map((f) => f.option)).toEqual(['single', 'optional', 'optional']);
    expect(allows(clip, clip.inputs[0]!, 'float32')).toBe(true);
    expect(allows(clip, clip.inputs[0]!, 'bool')).toBe(false);
    expect(schemaOf('com.microsoft', 'MatMulNBits', 1)!.attributes.get('K')!.required).toBe(true);
  });
});
