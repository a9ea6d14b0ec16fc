/** Peak resident memory of the running process, in MiB. */
import { readFileSync } from 'node:fs';

/**
 * Linux gives `ru_maxrss` of a child process at least what its parent had when it forked, so the process's own high-water
 * mark is read where there is one.
 */
export function peakMiB(): number {
  return statusMiB('VmHWM') ?? process.resourceUsage().maxRSS / 1024;
}

/** Resident memory now, in MiB. */
export function residentMiB(): number {
  return process.memoryUsage.rss() / 2 ** 20;
}

function statusMiB(field: string): number | undefined {
  try {
    const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
    return match === null ? undefined : Number(match[1]) / 1024;
  } catch {
    return undefined;
  }
}
