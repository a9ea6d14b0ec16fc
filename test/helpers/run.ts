/** Runs a graph in ONNX Runtime on the CPU. */
import ort from 'onnxruntime-node';
import type { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';

export type Feeds = Readonly<Record<string, ort.Tensor>>;
export type Results = Readonly<Record<string, ort.Tensor>>;

/** A session over a model as it stands; release it with `session.release()`. */
export function sessionOf(
  model: Model,
  options: ort.InferenceSession.SessionOptions = {},
): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(encodeModel(model), {
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
    ...options,
  });
}

/** Runs a model once; results by output name. */
export async function runModel(
  model: Model,
  feeds: Feeds,
  options: ort.InferenceSession.SessionOptions = {},
): Promise<Results> {
  const session = await sessionOf(model, options);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** Elements as numbers, whatever the dtype. */
export function numbers(tensor: ort.Tensor | undefined): number[] {
  if (tensor === undefined) throw new Error('no such output');
  return Array.from(tensor.data as ArrayLike<number | bigint>, Number);
}
