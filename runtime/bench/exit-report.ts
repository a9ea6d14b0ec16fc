/** Preloaded into a measured command (`node --import`): leaves the peak memory of its process in a file at the end. */
import { writeFileSync } from 'node:fs';
import { peakMiB } from './peak.js';

/** Environment variable that names the file. */
export const REPORT_VARIABLE = 'PEFT_COMPILE_BENCH_REPORT';

const path = process.env[REPORT_VARIABLE];
if (path !== undefined)
  process.once('exit', () => writeFileSync(path, JSON.stringify({ peakMiB: peakMiB() })));
