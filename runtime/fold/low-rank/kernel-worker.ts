/** A thread of `LowRankKernel`: updates rows of a weight in the memory of all threads. */
import { parentPort, workerData } from 'node:worker_threads';
import { type Engine, engineHere } from './engine.js';
import type { KernelReply, KernelRequest, KernelSetup } from './kernel-thread.js';

const { module, memory } = workerData as KernelSetup;
const { Instance } = engineHere() as Engine;
const { run } = new Instance(module, { env: { memory } }).exports;

parentPort?.on('message', (request: KernelRequest) => {
  const { id, at, count, columns, leftAt, leftStride, rank, rightAt, sumsAt } = request;
  run(at, count, columns, leftAt, leftStride, rank, rightAt, sumsAt);
  parentPort?.postMessage({ id } satisfies KernelReply);
});
