/** Sessions, verification and folding on WebGPU. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { insert } from '../../passes/insert/insert.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf, scalarTensor, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { loadSession } from '../../runtime/model-session.js';
import { SessionHost } from '../../runtime/session.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { refuses } from '../runtime/refuses.js';
import { tinyModel } from '../runtime/tiny.js';
import { whyNoGpu } from './software-gpu.js';

const missing = whyNoGpu();
const GPU = { ep: 'webgpu', threads: 1, cpuFallback: false } as const;
const folder = mkdtempSync(join(tmpdir(), 'webgpu-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** p' = p − lr·x, y = Σ p·x. */
const step = tinyModel({
  inputs: { x: ['float32', [2]], p: ['float32', [2]], lr: ['float32', []] },
  outputs: { y: ['float32', []], 'p.next': ['float32', [2]] },
  nodes: [
    { op: 'Mul', in: ['p', 'x'], out: ['px'] },
    { op: 'ReduceSum', in: ['px'], out: ['y'], attrs: { keepdims: 0 } },
    { op: 'Mul', in: ['x', 'lr'], out: ['d'] },
    { op: 'Sub', in: ['p', 'd'], out: ['p.next'] },
  ],
});
const feeds = (lr = 0.5) => ({
  x: tensorOfNumbers('float32', [2], [1, 3]),
  lr: scalarTensor('float32', lr),
});
const rotating = { resident: { p: 'p' }, keep: { 'p.next': 'p' } } as const;

describe.skipIf(missing !== undefined)('WebGPU sessions', () => {
  it('rotates tensors on the device, reads them back, and lets the CPU read them', async () => {
    const hosts = [new SessionHost(), new SessionHost()];
    // Two threads at once share one device.
    const losses = await Promise.all(
      hosts.map(async (host) => {
        const session = await host.createSession(step, { ...GPU, onDevice: ['p.next'] });
        await host.put({ p: tensorOfNumbers('float32', [2], [1, 2]) });
        const run: number[] = [];
        for (let i = 0; i < 3; i++) {
          const { y } = await session.runWith({ feeds: feeds(), ...rotating });
          run.push(numbersOf(y!)[0]!);
        }
        return run;
      }),
    );
    expect(losses).toEqual([
      [7, 2, -3],
      [7, 2, -3],
    ]);
    for (const host of hosts) {
      expect([...numbersOf((await host.get(['p'])).p!)]).toEqual([-0.5, -2.5]);
      const onCpu = await host.createSession(step, { threads: 1 });
      const { y } = await onCpu.runWith({ feeds: feeds(), resident: { p: 'p' }, fetch: ['y'] });
      expect([...numbersOf(y!)]).toEqual([-8]);
      await host.drop(['p']);
      await refuses(host.get(['p']), 'E_NO_MATCH', /resident under 'p'/);
      await host.close();
    }
  });

  it('keeps nothing of a run whose result is not finite', async () => {
    const host = new SessionHost();
    const session = await host.createSession(step, { ...GPU, onDevice: ['p.next'] });
    await host.put({ p: tensorOfNumbers('float32', [2], [3e38, 3e38]) });
    const { y } = await session.runWith({ feeds: feeds(), ...rotating, fetch: ['y'], ifFinite: ['y'] });
    expect(Number.isFinite(numbersOf(y!)[0]!)).toBe(false);
    expect([...numbersOf((await host.get(['p'])).p!)]).toEqual([3e38, 3e38].map(Math.fround));
    await host.close();
  });

  it('names operators that the device has no kernel for', async () => {
    const host = new SessionHost();
    const model = tinyModel({
      inputs: { x: ['float32', [2]] },
      outputs: { y: ['float32', [2]] },
      nodes: [{ op: 'Round', in: ['x'], out: ['y'] }],
    });
    await refuses(
      loadSession(host, model, GPU),
      'E_UNSUPPORTED',
      /WebGPU has no kernel for Round \(1 node\)/,
    );
    const { session } = await loadSession(host, model, { ...GPU, cpuFallback: true });
    const { y } = await session.run({ x: tensorOfNumbers('float32', [2], [0.4, 1.6]) });
    expect([...numbersOf(y!)]).toEqual([0, 2]);
    await host.close();
  });

  it('folds and verifies', async () => {
    const base = join(repositoryRoot, 'fixtures/models/bert.ts.static.onnx');
    const model = readModel(base);
    const config = { rank: 4, alpha: 12 };
    insert(model, { method: 'lora', config, targeting: { targets: ['query', 'value'] } });
    const record = readAdapterRecord(model);
    const tensors = new Map();
    for (const [key, tensor] of randomParameters(record, model)) tensors.set(key, await loadTensor(tensor));
    const adapter = join(folder, 'adapter.safetensors');
    await writeAdapter(adapter, record, tensors);
    const options = { model: base, adapter, session: { ep: 'webgpu' as const } };
    const report = await fold({ ...options, out: join(folder, 'merged.onnx'), verify: true });
    expect(report.tensors).toHaveLength(4);
    expect(report.verification?.pass).toBe(true);
    expect(report.verification?.worst.relative).toBeLessThan(1e-5);
  });
});
