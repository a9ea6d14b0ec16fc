/** Statistics of in-graph dropout masks. */
import ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adapterDropout, DropoutMasks, lowerDropout, stripDropout } from '../../passes/dropout.js';
import { applyEdit } from '../../passes/edit.js';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type Dim, tensorType } from '../../src/types.js';
import { numbers, sessionOf } from '../helpers/run.js';

const P = 0.3;
const SHAPE = [4, 32, 96] as const;
const SITES = 3;

/** `SITES` masks over one input of ones. */
function masksModel(dims: readonly Dim[]): Model {
  const model = new Model(new Graph());
  model.opsets.set('', 17);
  const x = model.graph.addInput(new Value({ name: 'x', type: tensorType('float32', dims) }));
  const seed = model.graph.addInput(new Value({ name: 'seed', type: tensorType('int32', []) }));
  const b = new Builder(model);
  const masks = new DropoutMasks(b, seed);
  const outputs = Array.from({ length: SITES }, (_, site) => masks.apply(x, P, site));
  applyEdit({
    label: 'masks',
    graph: model.graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  for (const [site, y] of outputs.entries()) model.graph.addOutput(`y${site}`, y);
  return model;
}

let session: ort.InferenceSession;
const count = SHAPE.reduce((n, d) => n * d, 1);
const ones = new ort.Tensor('float32', new Float32Array(count).fill(1), SHAPE);
/** 1 where kept, minus the expectation: a centred Bernoulli variable. */
async function centred(seed: number): Promise<number[][]> {
  const results = await session.run({ x: ones, seed: new ort.Tensor('int32', Int32Array.of(seed), []) });
  return Array.from({ length: SITES }, (_, site) =>
    numbers(results[`y${site}`]).map((v) => (v > 0 ? 1 : 0) - (1 - P)),
  );
}
beforeAll(async () => {
  session = await sessionOf(masksModel(['batch', 'seq', SHAPE[2]]));
});
afterAll(() => session.release());

const VARIANCE = P * (1 - P);
/** Correlation of two sequences, in standard deviations of what independent ones give. */
function z(a: readonly number[], b: readonly number[]): number {
  const sum = a.reduce((s, v, i) => s + v * b[i]!, 0);
  return sum / (VARIANCE * Math.sqrt(a.length));
}

describe('dropout', () => {
  it('keeps the expected value and drops a share p', async () => {
    const results = await session.run({ x: ones, seed: new ort.Tensor('int32', Int32Array.of(5), []) });
    const values = new Set(numbers(results.y0));
    expect([...values].sort()).toEqual([0, Math.fround(1 / (1 - P))]);
    let sum = 0;
    let worst = 0;
    const runs = 20;
    for (let seed = 0; seed < runs; seed++) {
      const [mask] = await centred(seed);
      const share = mask!.reduce((s, v) => s + v, 0);
      sum += share;
      worst = Math.max(worst, Math.abs(share) / Math.sqrt(VARIANCE * count));
    }
    // Twenty draws of a normal variable, and their sum.
    expect(worst).toBeLessThan(4);
    expect(Math.abs(sum) / Math.sqrt(VARIANCE * count * runs)).toBeLessThan(4);
  });

  it('spreads drops like independent draws over rows and columns', async () => {
    // Σ over rows of (drops in the row)²: too large when rows are alike, too small when they are stratified.
    for (const seed of [0, 1, 12345, -7]) {
      const mask = (await centred(seed))[0]!;
      for (const [groups, index] of [
        [SHAPE[0] * SHAPE[1], (i: number) => Math.floor(i / SHAPE[2])],
        [SHAPE[2], (i: number) => i % SHAPE[2]],
      ] as const) {
        const sums = new Array<number>(groups).fill(0);
        for (const [i, v] of mask.entries()) sums[index(i)]! += v;
        const chi = sums.reduce((s, v) => s + v * v, 0) / (VARIANCE * (count / groups));
        // Chi-squared with `groups` degrees of freedom.
        expect(Math.abs(chi - groups) / Math.sqrt(2 * groups)).toBeLessThan(4.5);
      }
    }
  });

  it('is uncorrelated between neighbours, rows, sites and seeds', async () => {
    const scores: number[] = [];
    for (const seed of [0, 1, 2, 1000, 2 ** 31 - 1, -(2 ** 31)]) {
      const masks = await centred(seed);
      const next = await centred((seed + 1) | 0);
      const [a, b] = [masks[0]!, masks[1]!];
      for (const lag of [1, 2, 3, 7, SHAPE[2] - 1, SHAPE[2], SHAPE[2] + 1, 2 * SHAPE[2], SHAPE[1] * SHAPE[2]])
        scores.push(
          z(a.slice(lag), a.slice(0, -lag)),
          z(a.slice(lag), b.slice(0, -lag)),
          z(a.slice(lag), next[0]!.slice(0, -lag)),
        );
      scores.push(z(a, b), z(b, masks[2]!), z(a, masks[2]!), z(a, next[0]!), z(b, next[1]!), z(a, next[1]!));
      // Corners of rectangles: the product structure of the masks would show here first.
      const corners = (di: number, dj: number): number => {
        let sum = 0;
        let n = 0;
        for (let i = 0; i + di < SHAPE[0] * SHAPE[1]; i++)
          for (let j = 0; j + dj < SHAPE[2]; j++, n++) {
            const at = (r: number, c: number) => a[r * SHAPE[2] + c]!;
            sum += at(i, j) * at(i + di, j) * at(i, j + dj) * at(i + di, j + dj);
          }
        return sum / (VARIANCE * VARIANCE * Math.sqrt(n));
      };
      scores.push(corners(1, 1), corners(2, 5), corners(32, 1));
    }
    // About 200 scores that are normal if independent: none beyond 4.5, and a mean square near 1.
    expect(Math.max(...scores.map(Math.abs))).toBeLessThan(4.5);
    const meanSquare = scores.reduce((s, v) => s + v * v, 0) / scores.length;
    expect(meanSquare).toBeGreaterThan(0.7);
    expect(meanSquare).toBeLessThan(1.4);
  });

  it('gives the same masks for static and symbolic shapes, and keeps the shape', async () => {
    const symbolic = masksModel(['batch', 'seq', SHAPE[2]]);
    expect(symbolic.graph.outputs[0]!.value.type).toEqual(tensorType('float32', ['batch', 'seq', SHAPE[2]]));
    const fixed = await sessionOf(masksModel(SHAPE));
    const feeds = { x: ones, seed: new ort.Tensor('int32', Int32Array.of(42), []) };
    const [a, b] = [await session.run(feeds), await fixed.run(feeds)];
    await fixed.release();
    for (let site = 0; site < SITES; site++) expect(numbers(a[`y${site}`])).toEqual(numbers(b[`y${site}`]));
  });

  it('turns marked Dropout nodes on for training and removes them for inference', async () => {
    const build = (): Model => {
      const model = new Model(new Graph());
      model.opsets.set('', 17);
      const x = model.graph.addInput(new Value({ name: 'x', type: tensorType('float32', [...SHAPE]) }));
      const b = new Builder(model);
      const y = b.op.Neg(adapterDropout(b, b.op.Dropout(x, 0.9), P));
      applyEdit({
        label: 'model',
        graph: model.graph,
        add: { nodes: b.nodes, at: 'end' },
        addInitializers: b.initializers,
      });
      model.graph.addOutput('y', y);
      return model;
    };
    const plain = build();
    stripDropout(plain);
    // The exporter's own Dropout is not the adapter's.
    expect([...plain.graph.nodes()].map(({ op }) => op)).toEqual(['Dropout', 'Neg']);
    const trained = build();
    const seed = new Value({ name: 'seed', type: tensorType('int32', []) });
    lowerDropout(trained, seed, 0.75);
    trained.graph.addInput(seed);
    const run = await sessionOf(trained);
    const { y } = await run.run({ x: ones, seed: new ort.Tensor('int32', Int32Array.of(3), []) });
    await run.release();
    const kept = numbers(y).filter((v) => v !== 0);
    expect(new Set(kept)).toEqual(new Set([-4]));
    expect(Math.abs(kept.length - count / 4)).toBeLessThan(4 * Math.sqrt((count * 3) / 16));
  });

  it('refuses probabilities outside [0, 1)', () => {
    const model = masksModel(SHAPE);
    const b = new Builder(model);
    const masks = new DropoutMasks(b, model.graph.inputs[1]!);
    expect(() => masks.apply(model.graph.inputs[0]!, 1, 0)).toThrow(/not in \[0, 1\)/);
  });
});
