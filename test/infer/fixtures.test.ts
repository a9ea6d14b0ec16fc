/** Every value of every export gets a fully ranked type with no unknown dimension. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
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
