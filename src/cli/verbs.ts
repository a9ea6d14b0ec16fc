/** The verbs, in the order of `--help`: the order of work. */
import type { Command } from 'commander';
import { completionCommand } from './completion.js';
import { doctorCommand } from './doctor.js';
import { emitCommand } from './emit.js';
import { foldCommand } from './fold.js';
import { insertCommand } from './insert.js';
import { inspectCommand } from './inspect.js';
import { methodsCommand } from './methods.js';
import { printCommand } from './print.js';
import { quickstartCommand } from './quickstart.js';
import { runCommand } from './run.js';
import { trainCommand } from './train.js';
import { verifyCommand } from './verify.js';

export const VERBS: readonly (() => Command)[] = [
  inspectCommand,
  insertCommand,
  emitCommand,
  trainCommand,
  foldCommand,
  verifyCommand,
  runCommand,
  methodsCommand,
  printCommand,
  quickstartCommand,
  doctorCommand,
  completionCommand,
];
