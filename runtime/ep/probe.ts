/** What a provider can do on this machine, found by running the smallest models. */
import { Graph, Node, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { type DType, tensorType } from '../../src/types.js';
import { numbersOf, tensorOfNumbers } from '../host-tensor.js';
import { createSession, type SessionOptions } from '../session.js';
import type { ExecutionProvider, Finding } from './provider.js';

/** y = (x + x)·m with a matrix m of ones, so that a kernel has to run. */
function probeModel(dtype: DType): Uint8Array {
  const model = new Model(new Graph());
  model.graph.name = 'probe';
  model.irVersion = 8;
  model.opsets.set('', 17);
  const value = (name: string) => new Value({ name, type: tensorType(dtype, [2, 2]) });
  const [x, m, sum, y] = ['x', 'm', 'sum', 'y'].map(value) as [Value, Value, Value, Value];
  model.graph.addInput(x);
  model.graph.addInput(m);
  model.graph.append(new Node({ op: 'Add', inputs: [x, x], outputs: [sum] }));
  model.graph.append(new Node({ op: 'MatMul', inputs: [sum, m], outputs: [y] }));
  model.graph.addOutput('y', y);
  return encodeModel(model);
}

/** Whether the provider computes in a dtype without help from the CPU; the reason where it does not. */
export async function computes(
  provider: ExecutionProvider,
  dtype: 'float32' | 'float16',
): Promise<{ readonly ok: boolean; readonly why: string }> {
  try {
    const session = await createSession(probeModel(dtype), {
      ep: provider.id as NonNullable<SessionOptions['ep']>,
      threads: 1,
      ...(provider.backedByCpu ? { cpuFallback: false } : {}),
    });
    try {
      const x = tensorOfNumbers(dtype, [2, 2], [1, 2, 3, 4]);
      const m = tensorOfNumbers(dtype, [2, 2], [1, 1, 1, 1]);
      const { y } = await session.run({ x, m });
      const right = y !== undefined && [...numbersOf(y)].join() === '6,6,14,14';
      return right ? { ok: true, why: '' } : { ok: false, why: 'it computes wrong numbers' };
    } finally {
      await session.release();
    }
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message : String(error) };
  }
}

/** Runs a model on the provider, and says whether half precision is there. */
export async function probe(provider: ExecutionProvider): Promise<Finding[]> {
  const single = await computes(provider, 'float32');
  if (!single.ok) return [{ check: 'a model runs', ok: false, found: single.why, remedy: provider.absent }];
  const half = await computes(provider, 'float16');
  return [
    { check: 'a model runs', ok: true, found: `on ${provider.title} alone` },
    {
      check: 'float16',
      ok: true,
      found: half.ok ? 'has kernels' : 'none here: half-precision models run in float32 or on the CPU',
    },
  ];
}
