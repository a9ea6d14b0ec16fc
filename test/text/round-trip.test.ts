import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cloneModel } from '../../src/clone.js';
import { walkNodes } from '../../src/graph.js';
import { parseModel, parseValueType, printModel, typeText } from '../../src/text/index.js';
import { modelArbitrary, typeArbitrary } from './random-model.js';

describe('text round trip', () => {
  it('prints what it parsed, for random models with subgraphs, functions and every attribute type', () => {
    fc.assert(
      fc.property(modelArbitrary, (model) => {
        const options = { annotations: true, payloadLimit: 1 << 20 };
        const text = printModel(model, options);
        const parsed = parseModel(text);
        expect(printModel(parsed, options)).toBe(text);
        expect([...walkNodes(parsed.graph)].filter((n) => n.op !== 'Identity').length).toBe(
          [...walkNodes(model.graph)].length,
        );
      }),
      { numRuns: 300, seed: 7 },
    );
  });

  it('clones to the same text without sharing a value', () => {
    fc.assert(
      fc.property(modelArbitrary, (model) => {
        const before = printModel(model, { annotations: true });
        const { model: copy, values, nodes } = cloneModel(model);
        expect(printModel(copy, { annotations: true })).toBe(before);
        const originals = new Set(values.keys());
        for (const node of walkNodes(copy.graph))
          for (const input of node.inputs) if (input !== null) expect(originals.has(input)).toBe(false);
        for (const [from, to] of values) expect(to.tensor?.data).toBe(from.tensor?.data);
        expect(nodes.size).toBe(
          [model.graph, ...model.functions.map((f) => f.graph)].reduce(
            (n, g) => n + [...walkNodes(g)].length,
            0,
          ),
        );
      }),
      { numRuns: 100, seed: 11 },
    );
  });

  it('answers damaged text with E_PARSE and nothing else', () => {
    fc.assert(
      fc.property(
        modelArbitrary,
        fc.array(fc.tuple(fc.nat(), fc.nat(40), fc.string({ maxLength: 3 })), { minLength: 1, maxLength: 3 }),
        (model, cuts) => {
          let text = printModel(model, { annotations: true });
          for (const [at, length, insert] of cuts) {
            const start = at % text.length;
            text = text.slice(0, start) + insert + text.slice(start + length);
          }
          try {
            parseModel(text);
          } catch (error) {
            expect(error).toMatchObject({ name: 'PeftCompileError', code: 'E_PARSE' });
          }
        },
      ),
      { numRuns: 500, seed: 5 },
    );
  });

  it('prints types that parse to themselves', () => {
    fc.assert(
      fc.property(typeArbitrary, (type) => {
        expect(parseValueType(typeText(type))).toEqual(type);
      }),
      { numRuns: 200, seed: 3 },
    );
  });
});
