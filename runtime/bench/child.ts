/**
 * A measured process: does one task, prints one JSON object with its figures and its own peak memory, and ends. Peaks
 * of one figure can so never hide in another's.
 */
import { performance } from 'node:perf_hooks';
import type { BenchTask, Figures } from './task.js';
import { TASKS } from './tasks.js';

const [name, input] = process.argv.slice(2);
const task: BenchTask | undefined = TASKS[name ?? ''];
if (task === undefined) throw new Error(`no benchmark task '${name}'`);
const start = performance.now();
const figures: Figures = await task(JSON.parse(input ?? '{}') as Record<string, unknown>);
const wallMs = performance.now() - start;
// maxRSS is in KiB.
const peakMiB = process.resourceUsage().maxRSS / 1024;
process.stdout.write(`${JSON.stringify({ ...figures, wallMs, peakMiB })}\n`);
