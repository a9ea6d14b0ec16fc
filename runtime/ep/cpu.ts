import { defineProvider } from './provider.js';

export const cpu = defineProvider({
  id: 'cpu',
  title: 'the CPU',
  backedByCpu: false,
  // ONNX Runtime casts around kernels that are missing for float16.
  withoutHalf: { float16: new Set() },
  absent: 'Install onnxruntime-node again; its package holds the binaries.',
  outOfMemory: 'Use a smaller batch, shorter sequences or gradient accumulation, or turn prepacking off.',
  check: () => [],
});
