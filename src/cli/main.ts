#!/usr/bin/env node
/** The `peft-compile` command. Verbs are one file each; this one wires them up and turns errors into exit statuses. */
import { run } from './program.js';

process.exitCode = await run(process.argv);
