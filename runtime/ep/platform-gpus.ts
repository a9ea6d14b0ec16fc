/** Providers of one platform each, which this project asks for and has not measured. */
import { defineProvider, type Finding } from './provider.js';

const outOfMemory = 'Use a smaller batch, --micro-batch or shorter sequences.';

function only(wanted: NodeJS.Platform, name: string, system: NodeJS.Platform): Finding[] {
  return [
    system === wanted
      ? { check: 'platform', ok: true, found: name }
      : { check: 'platform', ok: false, found: system, remedy: `This provider is part of ${name}` },
  ];
}

export const dml = defineProvider({
  id: 'dml',
  title: 'DirectML',
  backedByCpu: true,
  withoutHalf: { float16: new Set() },
  absent: 'Run with --ep cpu; DirectML is there on Windows alone.',
  outOfMemory,
  check: ({ platform }) => only('win32', 'Windows', platform),
});

export const coreml = defineProvider({
  id: 'coreml',
  title: 'CoreML',
  backedByCpu: true,
  withoutHalf: { float16: new Set() },
  absent: 'Run with --ep cpu; CoreML is there on macOS alone.',
  outOfMemory,
  check: ({ platform }) => only('darwin', 'macOS', platform),
});
