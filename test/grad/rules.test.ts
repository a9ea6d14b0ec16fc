/** Every gradient rule against finite differences, in float64 where ONNX Runtime has the kernels. */
import { describe, expect, it } from 'vitest';
import { allGradients } from '../../passes/grad/registry.js';
import { elementwise } from './cases/elementwise.js';
import { layers } from './cases/layers.js';
import { linear } from './cases/linear.js';
import { movement } from './cases/movement.js';
import { quantised } from './cases/quantised.js';
import { reductions } from './cases/reductions.js';
import { resizing } from './cases/resize.js';
import { compare } from './harness.js';

const cases = { ...elementwise, ...reductions, ...linear, ...movement, ...layers, ...quantised, ...resizing };

describe('gradient rules', () => {
  it('each has a case', () => {
    // Estimates have no finite difference to meet: test/quantised/straight-through.test.ts compares with their formula.
    const exact = allGradients().filter(({ estimate }) => estimate !== true);
    const rules = exact.map(({ op, domain }) => (domain ? `${domain}.${op}` : op));
    expect(Object.keys(cases).sort()).toEqual([...new Set(rules)].sort());
  });

  for (const [op, tests] of Object.entries(cases))
    describe(op, () => {
      for (const test of tests)
        it(test.name, async () => {
          for (const result of await compare(test)) {
            expect(Number.isFinite(result.error), JSON.stringify(result)).toBe(true);
            expect(result.error, JSON.stringify(result)).toBeLessThanOrEqual(result.tolerance);
          }
        });
    });
});
