import { defineProvider } from './provider.js';

export const cpu = defineProvider({
  id: 'cpu',
  title: 'the CPU',
  backedByCpu: false,
  absent: 'Install onnxruntime-node again; its package holds the binaries.',
  outOfMemory: 'Use a smaller batch, shorter sequences or gradient accumulation, or turn prepacking off.',
  check: () => [],
});
