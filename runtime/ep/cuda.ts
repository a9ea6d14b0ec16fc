import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findLibrary, neededLibraries } from './libraries.js';
import { defineProvider, type ExecutionProvider, type Finding, type Surroundings } from './provider.js';

/** Driver releases that a CUDA major version runs on, on Linux. */
const OLDEST_DRIVER: Readonly<Record<string, number>> = { '12': 525, '13': 580 };

/** What the provider library of CUDA 12 builds asks for, where the file cannot say. */
const USUAL = [
  'libcudart.so.12',
  'libcublas.so.12',
  'libcublasLt.so.12',
  'libcufft.so.11',
  'libcurand.so.10',
  'libcudnn.so.9',
];

/** Libraries of CUDA and cuDNN, as opposed to those of the system. */
const OF_CUDA = /^lib(cu|nv)/;

/** Operators without a bfloat16 kernel, beyond those that mixed graphs keep in float32 anyway. */
const BFLOAT16_GAPS = new Set(
  (
    'Ceil Clip ConvTranspose DepthToSpace Einsum Elu Equal Floor GlobalMaxPool Greater GreaterOrEqual LeakyRelu Less ' +
    'LessOrEqual MaxPool NonZero OneHot Pad PRelu ReduceMax ReduceMin Round Selu Shrink Softsign SpaceToDepth ' +
    'ThresholdedRelu TopK'
  ).split(' '),
);

/**
 * By ONNX Runtime's list of kernels (docs/OperatorKernels.md): products, elementwise arithmetic and what moves data have
 * them for bfloat16.
 */
const WITHOUT_HALF = { float16: new Set<string>(), bfloat16: BFLOAT16_GAPS };

const INSTALL =
  'Run the install script of onnxruntime-node, which downloads them: ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node --ignore-scripts=false';

export const cuda = defineProvider({
  id: 'cuda',
  title: 'CUDA',
  backedByCpu: true,
  withoutHalf: WITHOUT_HALF,
  absent:
    'Run with --ep cpu, or install what is missing: the provider libraries of onnxruntime-node, CUDA, cuDNN 9 or the driver. `peft-compile doctor --ep cuda` says which.',
  outOfMemory:
    'Use a smaller batch, --micro-batch or shorter sequences, or another GPU (CUDA_VISIBLE_DEVICES) with more free memory.',
  check: (around) => [...platform(around), ...providerLibraries(['cuda'], around)],
});

export const tensorrt = defineProvider({
  id: 'tensorrt',
  title: 'TensorRT',
  backedByCpu: true,
  withoutHalf: WITHOUT_HALF,
  absent: cuda.absent.replace('--ep cuda', '--ep tensorrt'),
  outOfMemory: cuda.outOfMemory,
  check: (around) => [...platform(around), ...providerLibraries(['cuda', 'tensorrt'], around)],
} satisfies ExecutionProvider);

function platform({ platform: system, arch }: Surroundings): Finding[] {
  if (system === 'linux' && arch === 'x64') return [];
  return [
    {
      check: 'CUDA binaries',
      ok: false,
      found: `onnxruntime-node has none for ${system} ${arch}`,
      remedy: 'Use Linux on x64; elsewhere --ep webgpu reaches the GPU',
    },
  ];
}

function providerLibraries(names: readonly string[], around: Surroundings): Finding[] {
  const files = ['shared', ...names].map((name) => `libonnxruntime_providers_${name}.so`);
  const missing = files.filter((name) => !existsSync(join(around.binaries, name)));
  const findings: Finding[] = [
    missing.length === 0
      ? { check: 'provider libraries', ok: true, found: `${files.join(', ')} in ${around.binaries}` }
      : {
          check: 'provider libraries',
          ok: false,
          found: `${missing.join(', ')} not in ${around.binaries}`,
          remedy: INSTALL,
        },
  ];
  const present = files.map((name) => join(around.binaries, name)).filter((path) => existsSync(path));
  const asked = [...new Set(present.flatMap((path) => neededLibraries(path)))].filter((name) =>
    OF_CUDA.test(name),
  );
  const wanted = asked.length > 0 ? asked : USUAL;
  const major = /libcudart\.so\.(\d+)/.exec(wanted.join(' '))?.[1] ?? '12';
  findings.push(libraries(wanted, major, around), driver(major, around));
  return findings;
}

function libraries(wanted: readonly string[], major: string, around: Surroundings): Finding {
  const absent = wanted.filter((name) => findLibrary(name, around) === undefined);
  if (absent.length === 0)
    return { check: 'CUDA libraries', ok: true, found: `CUDA ${major}: ${wanted.join(', ')}` };
  const other = otherVersions(absent, around);
  return {
    check: 'CUDA libraries',
    ok: false,
    found: `not on the library path: ${absent.join(', ')}${other === '' ? '' : `; there: ${other}`}`,
    remedy: `Install CUDA ${major} and cuDNN 9 (the wheels nvidia-cublas-cu${major}, nvidia-cudnn-cu${major} and the like hold them, too) and put their folders into LD_LIBRARY_PATH`,
  };
}

/** The same libraries under another version, which the provider cannot use. */
function otherVersions(absent: readonly string[], around: Surroundings): string {
  return absent
    .flatMap((name) => {
      const stem = name.replace(/\.so\..*$/, '.so');
      return [8, 9, 10, 11, 12, 13, 14]
        .map((version) => `${stem}.${version}`)
        .filter((other) => other !== name);
    })
    .filter((name) => findLibrary(name, around) !== undefined)
    .join(', ');
}

function driver(major: string, around: Surroundings): Finding {
  const version = join(around.root, 'proc/driver/nvidia/version');
  const library = findLibrary('libcuda.so.1', around);
  const loaded = existsSync(version)
    ? /Kernel Module[^\n]*?\s(\d+)\.(\d+)/.exec(readFileSync(version, 'utf8'))
    : null;
  if (loaded === null)
    return {
      check: 'NVIDIA driver',
      ok: false,
      found: existsSync(version) ? 'its version cannot be read' : 'the kernel module is not loaded',
      remedy: 'Install the NVIDIA driver; in a container, run it with the GPU passed through (--gpus all)',
    };
  if (library === undefined)
    return {
      check: 'NVIDIA driver',
      ok: false,
      found: `${loaded[1]}.${loaded[2]} is loaded, libcuda.so.1 is not on the library path`,
      remedy: "Install the driver's libraries, or mount them into the container",
    };
  const oldest = OLDEST_DRIVER[major];
  if (oldest !== undefined && Number(loaded[1]) < oldest)
    return {
      check: 'NVIDIA driver',
      ok: false,
      found: `${loaded[1]}.${loaded[2]}, CUDA ${major} needs ${oldest} or newer`,
      remedy: `Update the driver to ${oldest} or newer`,
    };
  return { check: 'NVIDIA driver', ok: true, found: `${loaded[1]}.${loaded[2]}, ${library}` };
}
