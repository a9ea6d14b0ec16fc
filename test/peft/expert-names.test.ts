/** Experts in one tensor whose name the exporter lost: a LoRA of PEFT at the parameters lands by what the graph shows. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findSites } from '../../passes/sites/index.js';
import type { LinearSite } from '../../passes/sites/site.js';
import type { Value } from '../../src/graph.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import { parseModel } from '../../src/text/index.js';
import { fixturePath } from '../helpers/fixtures.js';
import { refuses } from '../runtime/refuses.js';
import { foldedError, TOLERANCE } from './expert-folds.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-expert-names-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The model of a fixture without names of nodes, values and modules. */
async function anonymous(name: string): Promise<string> {
  const model = readModel(fixturePath('zoo', `${name}.onnx`));
  const { graph } = model;
  const kept = new Set<Value>([...graph.inputs, ...graph.outputs.map(({ value }) => value)]);
  let serial = 0;
  const strip = (value: Value | null): void => {
    if (value === null || kept.has(value)) return;
    value.metadata.clear();
    if (value.name !== undefined) value.name = `v${serial++}`;
  };
  for (const value of graph.initializers) strip(value);
  for (const node of graph.nodes()) {
    node.metadata.clear();
    node.name = undefined;
    for (const value of node.outputs) strip(value);
  }
  const path = join(folder, `${name}.anonymous.onnx`);
  await writeModel(model, path, { force: true });
  return path;
}

it('of Mixtral by the dynamo exporter, as merge_and_unload has it', async () => {
  const model = fixturePath('zoo', 'mixtral.dynamo.dynamic.onnx');
  expect(await foldedError(model, 'mixtral', join(folder, 'merged.onnx'))).toBeLessThanOrEqual(TOLERANCE);
});

it.each(['ts', 'dynamo'])('of Mixtral by %s without any name: by sizes and order', async (exporter) => {
  const model = await anonymous(`mixtral.${exporter}.dynamic`);
  expect(await foldedError(model, 'mixtral', join(folder, 'merged.onnx'))).toBeLessThanOrEqual(TOLERANCE);
});

it('are listed where sizes fit several, and a map says which is which', async () => {
  const model = await anonymous('experts.dynamo.dynamic');
  const parameter = 'model.layers.0.mlp.batched_experts.down_proj';
  await refuses(
    () => foldedError(model, 'experts', join(folder, 'merged.onnx')),
    'E_NO_MATCH',
    /'experts_0' \(3 of 16 to 12\), 'experts_1' \(3 of 12 to 16\).*--map map\.json with \{"model\.layers\.0\.mlp\.batched_experts\.down_proj": "experts_0"\}/,
  );
  // Linears of single experts have their place in the order of the graph only.
  const paths = findSites(readModel(fixturePath('zoo', 'experts.dynamo.dynamic.onnx'))).map(
    ({ path }) => path,
  );
  const found = findSites(readModel(model)).map(({ path }) => path);
  const w1 = paths.flatMap((path, i) => (path.endsWith('.w1') ? [[path, found[i] as string]] : []));
  const map = { ...Object.fromEntries(w1), [parameter]: 'experts_1' };
  expect(await foldedError(model, 'experts', join(folder, 'merged.onnx'), map)).toBeLessThanOrEqual(
    TOLERANCE,
  );
});

/** Two tensors of two experts each, multiplied one after the other below `module`. */
function twoTensors(
  [rows, middle, columns]: readonly [number, number, number],
  module = '/layers.0/experts',
): string[] {
  const floats = (count: number) => Array.from({ length: count }, (_, i) => (i % 7) / 7).join(', ');
  const half = middle / 2;
  const model = parseModel(
    `<ir_version: 8, opset_import: ["": 18]>
experts (float[2, n, ${rows}] x) => (float[2, n, ${columns}] y)
<float[2, ${rows}, ${middle}] v1 = {${floats(2 * rows * middle)}}, float[2, ${half}, ${columns}] v2 = {${floats(half * columns * 2)}}>
{
  ["${module}/MatMul"] h = MatMul(x, v1)
  g, u = Split <axis = -1, num_outputs = 2> (h)
  a = Mul(g, u)
  ["${module}/MatMul_1"] y = MatMul(a, v2)
}`.replace('"": 17', '"": 18'),
  );
  return findSites(model)
    .filter((site): site is LinearSite => site.kind === 'linear')
    .map(({ path, confidence }) => `${path} ${confidence}`);
}

it('are named where sizes say which is which, and numbered where nothing does', () => {
  expect(twoTensors([4, 12, 4])).toEqual([
    'layers.0.experts.gate_up_proj.0 0.7',
    'layers.0.experts.gate_up_proj.1 0.7',
    'layers.0.experts.down_proj.0 0.7',
    'layers.0.experts.down_proj.1 0.7',
  ]);
  // What comes out has not the width that went in: no block of experts.
  expect(twoTensors([4, 12, 3])).toEqual([
    'layers.0.experts.parameter_0.0 0.3',
    'layers.0.experts.parameter_0.1 0.3',
    'layers.0.experts.parameter_1.0 0.3',
    'layers.0.experts.parameter_1.1 0.3',
  ]);
  expect(twoTensors([4, 12, 4], '')[0]).toBe('experts_0.0 0.1');
});
