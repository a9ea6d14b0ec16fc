/**
 * Every value of every export gets a fully ranked type with no unknown dimension, and its symbolic shape at given sizes
 * is the shape that ONNX Runtime produced (generated/measured_shapes.json, written by measured_shapes.py).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { evaluateDim } from '../../src/dims.js';
import type { Value } from '../../src/graph.js';
import { walkGraphs } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { formatType } from '../../src/types.js';

const GOLDEN = '../shared/golden';
const root = 'fixtures/models';
const models = existsSync(root)
  ? readdirSync(root)
      .filter((name) => name.endsWith('.onnx'))
      .map((name) => join(root, name))
  : [];
const golden = ['models', 'ort-lora', 'ort-training']
  .map((folder) => join(GOLDEN, folder))
  .flatMap((folder) => (existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []))
  .filter((path) => path.endsWith('.onnx'));

function* values(model: Model): Iterable<Value> {
  for (const graph of walkGraphs(model.graph)) {
    yield* graph.initializers;
    for (const node of graph.nodes()) for (const output of node.outputs) if (output !== null) yield output;
  }
}

/** Lines `op: type` of values without a full type. */
function incomplete(model: Model): string[] {
  const out: string[] = [];
  for (const value of values(model)) {
    const { type } = value;
    if (type?.kind === 'tensor' && type.shape !== null && type.shape.every((dim) => dim !== null)) continue;
    out.push(`${value.producer?.qualifiedOp} ${value.label}: ${formatType(type)}`);
  }
  return out;
}

describe('inference over exports', () => {
  it.each(models)('%s', (path) => {
    const model = readModel(path);
    expect(inferModel(model)).toEqual([]);
    expect(incomplete(model)).toEqual([]);
  });

  it.skipIf(golden.length === 0)('finds the golden models of other tools', () => {
    expect(golden.length).toBeGreaterThan(0);
  });

  it.each(golden)('%s', (path) => {
    const model = readModel(path);
    expect(inferModel(model)).toEqual([]);
    expect(incomplete(model)).toEqual([]);
  });
});

interface Measured {
  readonly sizes: Readonly<Record<string, number>>;
  readonly shapes: readonly (readonly number[])[];
  readonly models: Readonly<Record<string, readonly number[]>>;
}

const measured = JSON.parse(
  readFileSync(join(import.meta.dirname, 'generated/measured_shapes.json'), 'utf8'),
) as Measured;

describe('inferred shapes against shapes measured in ONNX Runtime', () => {
  const sizes = new Map(Object.entries(measured.sizes));
  it.each(
    Object.keys(measured.models).filter((name) => models.some((path) => basename(path) === `${name}.onnx`)),
  )('%s', (name) => {
    const model = readModel(join(root, `${name}.onnx`));
    // What the file declares must not help.
    for (const node of model.graph.nodes())
      for (const output of node.outputs) if (output !== null) output.type = undefined;
    inferModel(model);
    const outputs = [...model.graph.nodes()].flatMap((node) => node.outputs.filter((o) => o !== null));
    const expected = measured.models[name]!;
    expect(outputs).toHaveLength(expected.length);
    const wrong = outputs.flatMap((value, i) => {
      const shape = value.type?.kind === 'tensor' ? value.type.shape : null;
      const found = shape?.map((dim) => evaluateDim(dim, sizes));
      const want = measured.shapes[expected[i]!]!;
      const same = found?.length === want.length && found.every((dim, axis) => dim === want[axis]);
      return same
        ? []
        : [`${value.producer!.op} ${value.label}: ${formatType(value.type)} is [${want.join(', ')}]`];
    });
    expect(wrong).toEqual([]);
  });
});
