import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { numbersOf, tensorOfNumbers } from '../../runtime/host-tensor.js';
import { openModel } from '../../runtime/model-session.js';
import { SessionHost } from '../../runtime/session.js';
import { verify } from '../../runtime/verify.js';
import { hasBfloat16, widenBfloat16 } from '../../runtime/widen.js';
import { decodeModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { tinyModel } from './tiny.js';

/** y = cast(cast(x·w) to bfloat16), all bfloat16 but for the input. */
const bytes = tinyModel({
  inputs: { x: ['float32', ['n', 2]] },
  outputs: { y: ['bfloat16', ['n', 2]] },
  initializers: { w: tensorOfNumbers('bfloat16', [2, 2], [1 / 3, -2, 0.5, 3]) },
  nodes: [
    { op: 'Cast', in: ['x'], out: ['xb'], attrs: { to: 16 } },
    { op: 'MatMul', in: ['xb', 'w'], out: ['y'] },
  ],
});

describe('bfloat16 models', () => {
  it('is computed in float32 with the stored numbers where there are no kernels', async () => {
    const host = new SessionHost();
    const { session, widened, model } = await openModel(host, bytes);
    expect(widened).toBe(true);
    expect(hasBfloat16(model)).toBe(true);
    expect(session.outputs[0]!.dtype).toBe('float32');
    const { y } = await session.run({ x: tensorOfNumbers('float32', [1, 2], [1, 2]) });
    // 1/3 is 0.333984375 in bfloat16.
    expect([...numbersOf(y!)]).toEqual([0.333984375 + 1, 4]);
    await host.close();
  });

  it('leaves the model alone and widens any byte range alike', () => {
    const model = decodeModel(bytes);
    const wide = widenBfloat16(model);
    expect([hasBfloat16(model), hasBfloat16(wide)]).toEqual([true, false]);
    const data = [...wide.graph.initializers][0]!.tensor!.data;
    const whole = data.read(0, 16);
    expect([...new Float32Array(whole.slice().buffer)]).toEqual([0.333984375, -2, 0.5, 3]);
    fc.assert(
      fc.property(fc.nat(16), fc.nat(16), (offset, length) => {
        const end = Math.min(16, offset + length);
        expect(data.read(offset, end - offset)).toEqual(whole.subarray(offset, end));
      }),
    );
  });

  const fixtures = ['bert.ts.bf16', 'llama.dynamo.bf16'].map((name) =>
    join(repositoryRoot, 'fixtures/models', `${name}.onnx`),
  );
  it.skipIf(!fixtures.every((path) => existsSync(path)))('verifies exports in bfloat16', async () => {
    for (const path of fixtures) {
      const report = await verify(path, path, { session: { threads: 1 } });
      expect([report.pass, report.widened], path).toEqual([true, true]);
      // The tolerance stays that of the stored dtype: 2^16 times that of float32.
      expect(report.tolerance).toBeGreaterThan(2 ** -8);
    }
  });
});
