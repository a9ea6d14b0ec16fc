/** The forms of graphs for devices compute what the graphs compute; run on the CPU. */
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type DeviceNeeds, lowerForDevice } from '../../passes/portable/device.js';
import { fitFeeds, fitOutput } from '../../runtime/ep/feeds.js';
import { withoutKernel } from '../../runtime/ep/placement.js';
import { webgpu } from '../../runtime/ep/webgpu.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { randomInputs } from '../../runtime/random-inputs.js';
import { SessionHost } from '../../runtime/session.js';
import type { Model } from '../../src/model.js';
import { decodeModel, encodeModel, readModel } from '../../src/onnx/index.js';
import { dtypeOf, shapeOf } from '../../src/value-type.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { refuses } from '../runtime/refuses.js';
import { tinyModel } from '../runtime/tiny.js';

const host = new SessionHost();
afterAll(() => host.close());
const needs = webgpu.needs as DeviceNeeds;

async function outputs(model: Model, feeds: Record<string, HostTensor>): Promise<Record<string, HostTensor>> {
  const session = await host.createSession(encodeModel(model), { threads: 1, optimize: 'basic' });
  const results = await session.run(fitFeeds(session.inputs, feeds));
  await session.release();
  return results;
}

async function sameAs(model: Model, feeds: Record<string, HostTensor>, tolerance: number): Promise<Model> {
  const sizes = Object.fromEntries(Object.entries(feeds).map(([name, { dims }]) => [name, dims]));
  const lowered = lowerForDevice(model, needs, sizes);
  const [wanted, got] = [await outputs(model, feeds), await outputs(lowered, feeds)];
  expect(Object.keys(got)).toEqual(Object.keys(wanted));
  for (const [name, tensor] of Object.entries(wanted)) {
    const other = fitOutput(got[name]!, tensor.dtype);
    expect([other.dtype, other.dims]).toEqual([tensor.dtype, tensor.dims]);
    const [a, b] = [numbersOf(tensor), numbersOf(other)];
    for (let i = 0; i < a.length; i++)
      if (!(Math.abs(a[i]! - b[i]!) <= tolerance)) expect.fail(`${name}[${i}]: ${a[i]} and ${b[i]}`);
  }
  return lowered;
}

describe('graphs for a device', () => {
  it.each(['bert.ts.dynamic', 'bert.ts.opset11', 'gpt2.dynamo.opset23', 'llama.ts.dynamic'])(
    '%s: sizes fixed, integers narrow, the same numbers',
    async (file) => {
      const model = readModel(join(repositoryRoot, 'fixtures/models', `${file}.onnx`));
      const before = encodeModel(model);
      const symbols = new Set(
        model.graph.inputs.flatMap((input) =>
          (shapeOf(input) ?? []).filter((dim) => typeof dim === 'string'),
        ),
      );
      const sizes = Object.fromEntries([...symbols].map((symbol, i) => [symbol, [3, 7][i] ?? 7]));
      const lowered = await sameAs(model, randomInputs(model, { seed: 5, sizes, padded: true }), 1e-5);
      expect(encodeModel(model)).toEqual(before);
      for (const { type } of lowered.graph.inputs)
        expect(type?.kind === 'tensor' && type.dtype === 'int32' && type.shape?.every(Number.isInteger)).toBe(
          true,
        );
      expect([...lowered.graph.nodes()].filter(({ op }) => op === 'Shape')).toEqual([]);
      expect(withoutKernel(lowered, webgpu)).toBeUndefined();
    },
  );

  it('writes missing operators as formulas', async () => {
    const float = ['float32', ['n', 2]] as const;
    const model = decodeModel(
      tinyModel({
        inputs: { x: float, z: float },
        outputs: {
          a: float,
          b: float,
          c: float,
          d: float,
          e: float,
          f: ['bool', ['n', 2]],
          g: ['bool', ['n', 2]],
          h: float,
        },
        nodes: [
          { op: 'Sum', in: ['x', 'z', 'x'], out: ['a'] },
          { op: 'Mean', in: ['x', 'z'], out: ['b'] },
          { op: 'LogSoftmax', in: ['x'], out: ['c'], attrs: { axis: -1 } },
          { op: 'Sign', in: ['x'], out: ['d'] },
          { op: 'Softsign', in: ['x'], out: ['e'] },
          { op: 'Greater', in: ['x', 'z'], out: ['p'] },
          { op: 'Less', in: ['x', 'd'], out: ['q'] },
          { op: 'Or', in: ['p', 'q'], out: ['f'] },
          { op: 'Xor', in: ['p', 'q'], out: ['g'] },
          { op: 'Selu', in: ['z'], out: ['h'] },
        ],
      }),
    );
    const feeds = {
      x: tensorOfNumbers('float32', [3, 2], [0, -1.5, 2, 0.25, -0.5, 7]),
      z: tensorOfNumbers('float32', [3, 2], [1, -3, 2.5, 0, 0.75, -0.1]),
    };
    const lowered = await sameAs(model, feeds, 2e-6);
    const ops = new Set([...lowered.graph.nodes()].map(({ op }) => op));
    expect([...needs.missing].filter((op) => ops.has(op))).toEqual([]);
  });

  it('moves truth values as floats where kernels move numbers', async () => {
    const model = decodeModel(
      tinyModel({
        inputs: { x: ['float32', [2, 3]], z: ['float32', [2, 3]] },
        outputs: { y: ['bool', [3, 4]] },
        nodes: [
          { op: 'Greater', in: ['x', 'z'], out: ['p'] },
          { op: 'Less', in: ['x', 'z'], out: ['q'] },
          { op: 'Concat', in: ['p', 'q'], out: ['both'], attrs: { axis: 0 } },
          { op: 'Transpose', in: ['both'], out: ['y'] },
        ],
      }),
    );
    const feeds = {
      x: tensorOfNumbers('float32', [2, 3], [1, 2, 3, 4, 5, 6]),
      z: tensorOfNumbers('float32', [2, 3], [2, 1, 3, 5, 4, -6]),
    };
    const lowered = await sameAs(model, feeds, 0);
    for (const node of lowered.graph.nodes())
      if (needs.numbersOnly.has(node.op))
        expect(node.inputs.map((input) => dtypeOf(input))).not.toContain('bool');
  });

  it('moves integers exactly where kernels move floats', async () => {
    const model = decodeModel(
      tinyModel({
        inputs: { ids: ['int64', [6]] },
        outputs: { y: ['int64', [5]] },
        initializers: { start: tensorOfNumbers('int64', [1], [1]), end: tensorOfNumbers('int64', [1], [6]) },
        nodes: [{ op: 'Slice', in: ['ids', 'start', 'end'], out: ['y'] }],
      }),
    );
    const ids = tensorOfNumbers(
      'int64',
      [6],
      [0, 2 ** 24 + 1, -(2 ** 24) - 3, 2 ** 31 - 1, -(2 ** 31), 65537],
    );
    await sameAs(model, { ids }, 0);
  });

  it('writes remainders as formulas, of either sign', async () => {
    const model = decodeModel(
      tinyModel({
        inputs: { x: ['float32', [6]], z: ['float32', [6]], i: ['int64', [6]], j: ['int64', [6]] },
        outputs: { a: ['float32', [6]], b: ['int64', [6]], c: ['int64', [6]] },
        nodes: [
          { op: 'Mod', in: ['x', 'z'], out: ['a'], attrs: { fmod: 1 } },
          { op: 'Mod', in: ['i', 'j'], out: ['b'] },
          { op: 'Mod', in: ['i', 'j'], out: ['c'], attrs: { fmod: 1 } },
        ],
      }),
    );
    const left = [7, -7, 7, -7, 6, -100000];
    const right = [3, 3, -3, -3, -3, 70001];
    const lowered = await sameAs(
      model,
      {
        x: tensorOfNumbers('float32', [6], left),
        z: tensorOfNumbers('float32', [6], right),
        i: tensorOfNumbers('int64', [6], left),
        j: tensorOfNumbers('int64', [6], right),
      },
      1e-6,
    );
    expect([...lowered.graph.nodes()].filter(({ op }) => op === 'Mod')).toEqual([]);
  });

  it('splits into many parts one by one, and moves integers as floats', async () => {
    const parts = Array.from({ length: 9 }, (_, i) => `p${i}`);
    const model = decodeModel(
      tinyModel({
        inputs: { ids: ['int64', [9, 2]] },
        outputs: { y: ['int64', [2, 2]], last: ['int64', [1, 2]] },
        initializers: {
          start: tensorOfNumbers('int64', [1], [3]),
          end: tensorOfNumbers('int64', [1], [5]),
          axes: tensorOfNumbers('int64', [1], [0]),
          sizes: tensorOfNumbers('int64', [9], new Array(9).fill(1)),
        },
        nodes: [
          { op: 'Slice', in: ['ids', 'start', 'end', 'axes'], out: ['y'] },
          { op: 'Split', in: ['ids', 'sizes'], out: parts },
          { op: 'Add', in: ['p0', 'p8'], out: ['last'] },
        ],
      }),
    );
    const ids = tensorOfNumbers(
      'int64',
      [9, 2],
      Array.from({ length: 18 }, (_, i) => 1000 * i),
    );
    const lowered = await sameAs(model, { ids }, 0);
    expect([...lowered.graph.nodes()].some(({ op }) => op === 'Split')).toBe(false);
    await refuses(
      () =>
        fitFeeds([{ name: 'ids', dtype: 'int32', shape: [1] }], {
          ids: tensorOfNumbers('int64', [1], [2n ** 40n]),
        }),
      'E_INVALID_DATA',
      /'ids' holds 1099511627776/,
    );
    await refuses(() => lowerForDevice(model, needs, { ids: [8, 2] }), 'E_TYPE', /given size is \[8, 2\]/);
  });
});
