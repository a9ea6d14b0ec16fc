/** A thread of `LowRankKernel`: updates rows of a weight in the memory of all threads. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Numbered } from '../../thread.js';
import { type Engine, engineHere, type Run } from './engine.js';
import type { KernelSetup, RowsToUpdate, RowsUpdated } from './protocol.js';
import type { KernelDType } from './storage.js';

const { modules, memory } = workerData as KernelSetup;
const { Instance } = engineHere() as Engine;
const runs = new Map<KernelDType, Run>();

function runOf(dtype: KernelDType): Run {
  let run = runs.get(dtype);
  if (run === undefined) {
    run = new Instance(modules[dtype], { env: { memory } }).exports.run;
    runs.set(dtype, run);
  }
  return run;
}

parentPort?.on('message', ({ id, request }: Numbered<RowsToUpdate>) => {
  const { dtype, at, count, columns, leftAt, leftStride, rank, rightAt, sumsAt } = request;
  runOf(dtype)(at, count, columns, leftAt, leftStride, rank, rightAt, sumsAt);
  parentPort?.postMessage({ id } satisfies RowsUpdated);
});
