import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { findLibrary } from './libraries.js';
import { defineProvider, type Finding, type Surroundings } from './provider.js';

const words = (text: string): ReadonlySet<string> => new Set(text.split(/\s+/).filter((word) => word !== ''));

/** Vulkan drivers are announced by JSON files in these folders, on Linux. */
const DRIVER_FOLDERS = ['/etc/vulkan/icd.d', '/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d'];

/**
 * WebGPU through Dawn, inside the npm package: Vulkan on Linux, Direct3D 12 on Windows, Metal on macOS. Facts about
 * kernels were found by running graphs on onnxruntime-node 1.30 with the CPU forbidden.
 */
export const webgpu = defineProvider({
  id: 'webgpu',
  title: 'WebGPU',
  residency: 'gpu-buffer',
  backedByCpu: true,
  needs: {
    fixedSizes: true,
    narrowIntegers: true,
    missing: words('Attention Sum Mean LogSoftmax Or Xor Sign IsNaN Mod Softsign Selu'),
    floatOnly: words('Slice GatherND'),
    numbersOnly: words('Transpose Concat'),
    // Every adapter allows a shader 8 storage buffers; one is the input.
    maxOutputs: 7,
  },
  kernels: words(`
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Clip Concat
    Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid
    Identity If InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Min Mul Neg
    Not Pad Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding ScatterElements ScatterND
    Shape Sigmoid SimplifiedLayerNormalization Sin Sinh Slice Softmax Softplus Split Sqrt Squeeze Sub Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where`),
  // With `shader-f16`, which the adapter has to have.
  withoutHalf: { float16: new Set() },
  absent:
    'Run with --ep cpu, or install a graphics driver with Vulkan 1.1 and its loader (libvulkan1 on Debian); `peft-compile doctor --ep webgpu` says what is missing.',
  outOfMemory:
    'Use a smaller batch, --micro-batch or shorter sequences; a single buffer may also exceed what the adapter allows.',
  check,
});

function check(around: Surroundings): Finding[] {
  const findings: Finding[] = [];
  if (around.platform === 'linux' && around.arch !== 'x64')
    findings.push({
      check: 'WebGPU binaries',
      ok: false,
      found: `onnxruntime-node has none for ${around.platform} ${around.arch}`,
      remedy: 'Use a machine with an x64 processor, or --ep cpu',
    });
  if (around.platform !== 'linux') return findings;
  const loader = findLibrary('libvulkan.so.1', around);
  findings.push(
    loader === undefined
      ? {
          check: 'Vulkan loader',
          ok: false,
          found: 'libvulkan.so.1 is not on the library path',
          remedy: 'Install it (apt-get install libvulkan1), or put its folder into LD_LIBRARY_PATH',
        }
      : { check: 'Vulkan loader', ok: true, found: loader },
  );
  const { drivers, broken } = vulkanDrivers(around);
  const software = drivers.length > 0 && drivers.every((path) => /swiftshader|lvp|llvmpipe/i.test(path));
  if (drivers.length === 0)
    findings.push({
      check: 'Vulkan driver',
      ok: false,
      found: broken ?? 'no driver file (icd.d/*.json)',
      remedy:
        "Install the driver of the GPU's maker (Mesa: apt-get install mesa-vulkan-drivers), or name its JSON file in VK_ICD_FILENAMES; in a container the driver files of the host must be mounted",
    });
  else
    findings.push({
      check: 'Vulkan driver',
      ok: true,
      found: `${drivers.join(', ')}${software ? '; this one computes on the CPU' : ''}`,
    });
  return findings;
}

/** Driver files whose library is there. */
function vulkanDrivers(around: Surroundings): { drivers: string[]; broken: string | undefined } {
  const named = around.env.VK_DRIVER_FILES ?? around.env.VK_ICD_FILENAMES;
  const files =
    named !== undefined && named !== ''
      ? named.split(':')
      : DRIVER_FOLDERS.flatMap((folder) => {
          const here = join(around.root, folder);
          return existsSync(here)
            ? readdirSync(here)
                .filter((name) => name.endsWith('.json'))
                .sort()
                .map((name) => join(here, name))
            : [];
        });
  let broken: string | undefined;
  const drivers = files.filter((file) => {
    const problem = driverProblem(file, around);
    broken ??= problem;
    return problem === undefined;
  });
  return { drivers, broken };
}

function driverProblem(file: string, around: Surroundings): string | undefined {
  if (!existsSync(file)) return `${file} does not exist`;
  let library: unknown;
  try {
    library = (JSON.parse(readFileSync(file, 'utf8')) as { ICD?: { library_path?: unknown } }).ICD
      ?.library_path;
  } catch {
    return `${file} is not readable as JSON`;
  }
  if (typeof library !== 'string') return `${file} names no library`;
  if (isAbsolute(library))
    return existsSync(library) ? undefined : `${file} names ${library}, which is missing`;
  if (library.includes('/'))
    return existsSync(join(dirname(file), library))
      ? undefined
      : `${file} names ${library}, which is missing`;
  return findLibrary(library, around) === undefined
    ? `${file} names ${library}, which is not on the library path`
    : undefined;
}
