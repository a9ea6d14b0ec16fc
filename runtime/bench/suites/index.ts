/** All suites, in the order they run. */
import type { Suite } from '../suite.js';
import { accuracy } from './accuracy.js';
import { compile } from './compile.js';
import { fold } from './fold.js';
import { io } from './io.js';
import { largeFold } from './large-fold.js';
import { latency } from './latency.js';
import { methods } from './methods.js';
import { qlora } from './qlora.js';
import { serving } from './serving.js';
import { step } from './step.js';

export const SUITES: readonly Suite[] = [
  step,
  qlora,
  fold,
  largeFold,
  latency,
  serving,
  compile,
  io,
  accuracy,
  methods,
];
