/** Slices that partition an axis, where some of them are in bodies of control flow. */
import { expect, it } from 'vitest';
import { slicesPass } from '../../passes/normalize/slices.js';
import { runPasses } from '../../passes/runner.js';
import { inferModel } from '../../src/infer/index.js';
import { parseModel } from '../../src/text/index.js';

it('joins slices of one graph only', () => {
  const model = parseModel(`<ir_version: 8, opset_import: ["": 17]>
halves (bool c, float[n, 8] x) => (float[n, 4] a, float[n, 4] y)
<int64[1] zero = {0}, int64[1] half = {4}, int64[1] full = {8}, int64[1] axis = {1}>
{
  a = Slice(x, zero, half, axis)
  y = If (c) <
    then_branch = yes () => (float[n, 4] p) { p = Slice(x, half, full, axis) },
    else_branch = no () => (float[n, 4] q) { q = Neg(a) }
  >
}`);
  inferModel(model);
  runPasses(model, [slicesPass]);
  expect([...model.graph.nodes()].map(({ op }) => op)).toEqual(['Slice', 'If']);
});
