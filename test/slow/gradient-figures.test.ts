/**
 * Prints how far the gradient rules are from finite differences, by family: the table of `docs/numerics.md`. The
 * assertions themselves are those of `test/grad/rules.test.ts`.
 */
import { expect, test } from 'vitest';
import { formatTable, scientific } from '../../runtime/bench/table.js';
import { elementwise } from '../grad/cases/elementwise.js';
import { layers } from '../grad/cases/layers.js';
import { linear } from '../grad/cases/linear.js';
import { movement } from '../grad/cases/movement.js';
import { reductions } from '../grad/cases/reductions.js';
import { compare, type GradientCase } from '../grad/harness.js';

const FAMILIES: Readonly<Record<string, Readonly<Record<string, readonly GradientCase[]>>>> = {
  elementwise,
  reductions,
  linear,
  movement,
  layers,
};

interface Worst {
  readonly operator: string;
  readonly error: number;
  readonly tolerance: number;
}

test('finite differences by family', async () => {
  const rows = [];
  for (const [family, operators] of Object.entries(FAMILIES))
    for (const dtype of ['float64', 'float32'] as const) {
      let comparisons = 0;
      let worst: Worst = { operator: '', error: -1, tolerance: Number.POSITIVE_INFINITY };
      const covered = new Set<string>();
      for (const [operator, cases] of Object.entries(operators))
        for (const item of cases.filter((each) => (each.dtype ?? 'float64') === dtype))
          for (const { error, tolerance } of await compare(item)) {
            comparisons++;
            covered.add(operator);
            expect(error, item.name).toBeLessThanOrEqual(tolerance);
            if (error > worst.error) worst = { operator, error, tolerance };
          }
      if (covered.size > 0)
        rows.push({ family, dtype, operators: covered.size, comparisons, ...worst, worst: worst.operator });
    }
  const table = formatTable({
    id: 'finite-differences',
    title: 'Gradient rules against finite differences',
    columns: [
      { key: 'family', head: 'family' },
      { key: 'dtype', head: 'evaluated in' },
      { key: 'operators', head: 'operators' },
      { key: 'comparisons', head: 'comparisons' },
      { key: 'error', head: 'worst error', format: scientific },
      { key: 'tolerance', head: 'its tolerance', format: scientific },
      { key: 'worst', head: 'at' },
    ],
    rows,
  });
  process.stdout.write(`\n${table}\n`);
  expect(rows.length).toBeGreaterThan(5);
});
