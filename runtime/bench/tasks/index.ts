/** The tasks that run in processes of their own, by name. Inputs are plain JSON, written by the suites. */
import type { BenchTask } from '../task.js';
import { agreement, foldErrors } from './accuracy.js';
import { compile, differentiate } from './compile.js';
import { copy, rewrite } from './files.js';
import { cachePages, largeFold, systemCopy, writeLlama } from './large.js';
import { latency } from './latency.js';
import { method } from './method.js';
import { planSteps } from './plan.js';
import { writeBert, writeRandomAdapter, writeSteps, writeUnfolded } from './prepare.js';
import { quantizeBase } from './quantize.js';
import { forward, step, train } from './run.js';
import { serving } from './serving.js';

export const TASKS: Readonly<Record<string, BenchTask>> = {
  agreement,
  cachePages,
  compile,
  copy,
  differentiate,
  foldErrors,
  forward,
  largeFold,
  latency,
  method,
  quantizeBase,
  rewrite,
  serving,
  step,
  systemCopy,
  train,
  writeBert,
  writeLlama,
  writeRandomAdapter,
  writeSteps,
  planSteps,
  writeUnfolded,
};
