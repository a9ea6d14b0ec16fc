/**
 * A measured process: does one task, prints one JSON object with its figures and its own peak memory, and ends. Peaks
 * of one figure can so never hide in another's.
 */
import { performance } from 'node:perf_hooks';
import { peakMiB, residentMiB } from './peak.js';
import type { Json } from './task.js';
import { TASKS } from './tasks/index.js';

const [name, input] = process.argv.slice(2);
const task = TASKS[name ?? ''];
if (task === undefined) throw new Error(`no benchmark task '${name}'`);
const idleMiB = residentMiB();
const start = performance.now();
const figures = await task(JSON.parse(input ?? '{}') as Json);
const wallMs = performance.now() - start;
process.stdout.write(`${JSON.stringify({ ...figures, wallMs, idleMiB, peakMiB: peakMiB() })}\n`);
