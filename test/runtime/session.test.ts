import { afterAll, describe, expect, it } from 'vitest';
import { numbersOf, scalarTensor, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { createSession, SessionHost } from '../../runtime/session.js';
import { refuses } from './refuses.js';
import { tinyModel } from './tiny.js';

/** p' = p − lr·x, y = Σ p·x; one row of symbolic length. */
const step = tinyModel({
  inputs: { x: ['float32', ['n']], p: ['float32', ['n']], lr: ['float32', []] },
  outputs: { y: ['float32', []], 'p.next': ['float32', ['n']] },
  nodes: [
    { op: 'Mul', in: ['p', 'x'], out: ['px'] },
    { op: 'ReduceSum', in: ['px'], out: ['y'], attrs: { keepdims: 0 } },
    { op: 'Mul', in: ['x', 'lr'], out: ['d'] },
    { op: 'Sub', in: ['p', 'd'], out: ['p.next'] },
  ],
});

const host = new SessionHost();
afterAll(() => host.close());

describe('sessions', () => {
  it('runs a model in memory and reports its interface', async () => {
    const session = await createSession(step, { threads: 1, logLevel: 'fatal' });
    expect(session.inputs).toEqual([
      { name: 'x', dtype: 'float32', shape: ['n'] },
      { name: 'p', dtype: 'float32', shape: ['n'] },
      { name: 'lr', dtype: 'float32', shape: [] },
    ]);
    const out = await session.run({
      x: tensorOfNumbers('float32', [3], [1, -2, 3]),
      p: tensorOfNumbers('float32', [3], [0.5, 1, 2]),
      lr: scalarTensor('float32', 0.25),
    });
    expect([...numbersOf(out.y!)]).toEqual([4.5]);
    expect([...numbersOf(out['p.next']!)]).toEqual([0.25, 1.5, 1.25]);
    await session.release();
  });

  it('rotates resident tensors from outputs to inputs', async () => {
    const session = await host.createSession(step, { threads: 1 });
    await host.put({ p: tensorOfNumbers('float32', [2], [1, 2]) });
    const losses: number[] = [];
    for (let i = 0; i < 3; i++) {
      const out = await session.runWith({
        feeds: { x: tensorOfNumbers('float32', [2], [1, 3]), lr: scalarTensor('float32', 0.5) },
        resident: { p: 'p' },
        keep: { 'p.next': 'p' },
        transfer: true,
      });
      expect(Object.keys(out)).toEqual(['y']);
      losses.push(numbersOf(out.y!)[0]!);
    }
    expect(losses).toEqual([7, 2, -3]);
    // Kept and fetched at once: the kept tensor survives.
    const both = await session.runWith({
      feeds: { x: tensorOfNumbers('float32', [2], [1, 3]), lr: scalarTensor('float32', 0.5) },
      resident: { p: 'p' },
      keep: { 'p.next': 'p' },
      fetch: ['p.next'],
    });
    const stored = await host.get(['p']);
    expect([...numbersOf(both['p.next']!)]).toEqual([-1, -4]);
    expect([...numbersOf(stored.p!)]).toEqual([-1, -4]);
    await host.drop(['p']);
    await refuses(host.get(['p']), 'E_NO_MATCH', /resident under 'p'/);
    await session.release();
  });

  it('leaves the main thread free while a model runs', async () => {
    const n = 900;
    const w = tensorOfNumbers('float32', [n, n], new Float32Array(n * n).fill(1e-3));
    const slow = await host.createSession(
      tinyModel({
        inputs: { x: ['float32', [n, n]] },
        outputs: { y: ['float32', [n, n]] },
        initializers: { w },
        nodes: Array.from({ length: 12 }, (_, i) => ({
          op: 'MatMul',
          in: [i === 0 ? 'x' : `h${i - 1}`, 'w'],
          out: [i === 11 ? 'y' : `h${i}`],
        })),
      }),
      { threads: 1 },
    );
    let ticks = 0;
    const timer = setInterval(() => ticks++, 2);
    await slow.run({ x: w });
    clearInterval(timer);
    // 12 products of 2·900³ flops take well over 100 ms on one thread.
    expect(ticks).toBeGreaterThan(5);
    await slow.release();
  });

  it('names the input that does not fit', async () => {
    const session = await host.createSession(step);
    const x = tensorOfNumbers('float32', [2], [1, 3]);
    const lr = scalarTensor('float32', 1);
    await refuses(session.run({ x, lr }), 'E_TYPE', /'p' was not given/);
    await refuses(session.run({ x, p: x, lr, z: x }), 'E_TYPE', /no input 'z'/);
    await refuses(
      session.run({ x, p: tensorOfNumbers('int32', [2], [1, 2]), lr }),
      'E_TYPE',
      /'p' is float32\[n\], the given tensor is int32\[2\]/,
    );
    await refuses(session.run({ x, p: tensorOfNumbers('float32', [1, 2], [1, 2]), lr }), 'E_TYPE');
    await refuses(session.run({ x, p: { ...x, data: x.data.subarray(4) }, lr }), 'E_TYPE', /has 4 bytes/);
    await refuses(session.run({ x, p: x, lr }, ['nope']), 'E_NO_MATCH');
    // A shape that only the kernel can refuse is reported too.
    await refuses(session.run({ x, p: tensorOfNumbers('float32', [3], [1, 2, 3]), lr }), 'E_RUNTIME', /Sub/);
    await session.release();
  });

  it('explains files, providers and operators it cannot use', async () => {
    await refuses(host.createSession('/nowhere/model.onnx'), 'E_IO');
    await refuses(host.createSession(new Uint8Array([1, 2, 3])), 'E_INVALID_GRAPH');
    await refuses(host.createSession(step, { ep: 'cuda' }), 'E_UNSUPPORTED');
    const unknown = tinyModel({
      inputs: { x: ['float32', [1]] },
      outputs: { y: ['float32', [1]] },
      nodes: [{ op: 'NoSuchOp', in: ['x'], out: ['y'] }],
    });
    await refuses(host.createSession(unknown, { logLevel: 'fatal' }), 'E_UNSUPPORTED');
    const bf16 = tinyModel({
      inputs: { x: ['bfloat16', [1]] },
      outputs: { y: ['float32', [1]] },
      nodes: [{ op: 'Cast', in: ['x'], out: ['y'], attrs: { to: 1 } }],
    });
    await refuses(host.createSession(bf16), 'E_UNSUPPORTED', /bfloat16/);
  });

  it('reads external data from memory', async () => {
    const stored = tensorOfNumbers('float32', [2], [3, -4]);
    const model = tinyModel({
      inputs: { x: ['float32', [2]] },
      outputs: { y: ['float32', [2]] },
      external: { w: { tensor: stored, file: 'weights.bin' } },
      nodes: [{ op: 'Mul', in: ['x', 'w'], out: ['y'] }],
    });
    const session = await host.createSession(model, {
      externalData: [{ path: 'weights.bin', data: stored.data }],
    });
    const { y } = await session.run({ x: tensorOfNumbers('float32', [2], [10, 1]) });
    expect([...numbersOf(y!)]).toEqual([30, -4]);
    await refuses(host.createSession(model), 'E_EXTERNAL_DATA');
  });

  it('passes every element type through unchanged', async () => {
    for (const dtype of [
      'float32',
      'float64',
      'float16',
      'int64',
      'int32',
      'uint8',
      'bool',
      'uint64',
    ] as const) {
      const session = await host.createSession(
        tinyModel({
          inputs: { x: [dtype, [2, 2]] },
          outputs: { y: [dtype, [2, 2]] },
          nodes: [{ op: 'Transpose', in: ['x'], out: ['y'], attrs: { perm: [1, 0] } }],
        }),
      );
      const out = await session.run({
        x: tensorOfNumbers(
          dtype,
          [2, 2],
          [0, 1, 1, 0.5].map((v) => (dtype.startsWith('float') ? v : Math.round(v))),
        ),
      });
      const last = dtype.startsWith('float') ? 0.5 : 1;
      expect(out.y!.dtype).toBe(dtype);
      expect([...numbersOf(out.y!)], dtype).toEqual([0, 1, 1, last]);
      await session.release();
    }
  });

  it('says that an index is outside its table', async () => {
    const session = await host.createSession(
      tinyModel({
        inputs: { ids: ['int64', ['n']] },
        outputs: { y: ['float32', ['n', 2]] },
        initializers: { table: tensorOfNumbers('float32', [3, 2], [1, 2, 3, 4, 5, 6]) },
        nodes: [{ op: 'Gather', in: ['table', 'ids'], out: ['y'] }],
      }),
    );
    await refuses(
      session.run({ ids: tensorOfNumbers('int64', [2], [0, 3]) }),
      'E_INVALID_DATA',
      /vocabulary/,
    );
    await session.release();
  });

  it('closes once for all who ask, and says afterwards that it is closed', async () => {
    const closing = new SessionHost();
    const session = await closing.createSession(
      tinyModel({
        inputs: { x: ['float32', []] },
        outputs: { y: ['float32', []] },
        nodes: [{ op: 'Neg', in: ['x'], out: ['y'] }],
      }),
    );
    await Promise.all([closing.close(), closing.close()]);
    await closing.close();
    await session.release();
    await refuses(
      session.run({ x: tensorOfNumbers('float32', [], [1]) }),
      'E_RUNTIME',
      /after its host was closed/,
    );
  });
});
