/** The verbs, in the order of `--help`: the order of work. */
import type { Command } from 'commander';
import { foldCommand } from './fold.js';
import { insertCommand } from './insert.js';
import { methodsCommand } from './methods.js';
import { printCommand } from './print.js';
import { verifyCommand } from './verify.js';

export const VERBS: readonly (() => Command)[] = [
  insertCommand,
  foldCommand,
  verifyCommand,
  methodsCommand,
  printCommand,
];
