/** What `doctor` says about providers, on machines made of folders. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { cuda } from '../../runtime/ep/cuda.js';
import { PROVIDERS, providerOf, type Surroundings } from '../../runtime/ep/index.js';
import { linkerFolders, neededLibraries } from '../../runtime/ep/libraries.js';
import { webgpu } from '../../runtime/ep/webgpu.js';
import { ortError } from '../../runtime/ort-errors.js';
import { refuses } from '../runtime/refuses.js';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

/** A machine that holds these files. */
function machine(
  files: Readonly<Record<string, string | Uint8Array>>,
  env: Surroundings['env'] = {},
): Surroundings {
  const root = mkdtempSync(join(tmpdir(), 'machine-'));
  roots.push(root);
  for (const [path, contents] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), contents);
  }
  const here = Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, value?.replaceAll('@', root)]),
  );
  return {
    platform: 'linux',
    arch: 'x64',
    env: here,
    binaries: join(root, 'bin'),
    libraryFolders: linkerFolders(root),
    root,
  };
}

const named = (names: readonly string[], contents = '') =>
  Object.fromEntries(names.map((name) => [name, contents]));
const PROVIDER_LIBRARIES = ['bin/libonnxruntime_providers_shared.so', 'bin/libonnxruntime_providers_cuda.so'];
const CUDA_12 = [
  'libcudart.so.12',
  'libcublas.so.12',
  'libcublasLt.so.12',
  'libcufft.so.11',
  'libcurand.so.10',
  'libcudnn.so.9',
];
const driver = (version: string) => ({
  'proc/driver/nvidia/version': `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  ${version}  Release Build\n`,
  'usr/lib/x86_64-linux-gnu/libcuda.so.1': '',
});

/** An ELF file of 64 bits whose dynamic section asks for these libraries. */
function elf(needed: readonly string[]): Uint8Array {
  const strings = Buffer.from(`\0${needed.map((name) => `${name}\0`).join('')}`);
  const file = Buffer.alloc(0x200 + strings.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const u64 = (at: number, value: number) => file.writeBigUInt64LE(BigInt(value), at);
  u64(32, 64);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(2, 56);
  const segment = (at: number, type: number, offset: number, address: number, bytes: number) => {
    file.writeUInt32LE(type, at);
    u64(at + 8, offset);
    u64(at + 16, address);
    u64(at + 32, bytes);
  };
  segment(64, 1, 0, 0x1000, file.length);
  const entries = needed.map((name) => [1, strings.indexOf(`\0${name}\0`) + 1]);
  const dynamic = [...entries, [5, 0x1200], [0, 0]] as [number, number][];
  segment(120, 2, 0x100, 0x1100, 16 * dynamic.length);
  for (const [i, [tag, value]] of dynamic.entries()) {
    u64(0x100 + 16 * i, tag);
    u64(0x108 + 16 * i, value);
  }
  file.set(strings, 0x200);
  return file;
}

const failures = (findings: ReturnType<typeof cuda.check>) =>
  findings.filter(({ ok }) => !ok).map(({ check, found, remedy }) => `${check}: ${found} → ${remedy}`);

describe('what CUDA needs', () => {
  it('names all that is missing on a bare machine, each with a remedy', () => {
    const around = machine({});
    const said = failures(cuda.check(around));
    expect(said).toHaveLength(3);
    expect(said[0]).toMatch(
      /^provider libraries: libonnxruntime_providers_shared\.so, .*_cuda\.so not in .*ONNXRUNTIME_NODE_INSTALL=cuda12/,
    );
    expect(said[1]).toMatch(
      /^CUDA libraries: not on the library path: libcudart\.so\.12, .*libcudnn\.so\.9 → Install CUDA 12/,
    );
    expect(said[2]).toMatch(/^NVIDIA driver: the kernel module is not loaded/);
  });

  it('is content with a whole installation, wherever the linker finds it', () => {
    const files = {
      ...named(PROVIDER_LIBRARIES),
      ...named(CUDA_12.slice(1).map((name) => `opt/cuda/lib/${name}`)),
      'etc/ld.so.conf': 'include /etc/ld.so.conf.d/*.conf\n',
      'etc/ld.so.conf.d/cuda.conf': '# CUDA\n/opt/cuda/lib\n',
      'home/lib/libcudart.so.12': '',
      ...driver('550.54.14'),
    };
    expect(failures(cuda.check(machine(files, { LD_LIBRARY_PATH: '@/home/lib' })))).toEqual([]);
    expect(failures(cuda.check(machine(files)))).toHaveLength(1);
  });

  it('asks for the versions that the provider library was built for, and names those that are there', () => {
    const around = machine({
      [PROVIDER_LIBRARIES[0]!]: '',
      [PROVIDER_LIBRARIES[1]!]: elf(['libcudart.so.13', 'libcublas.so.13', 'libcudnn.so.9', 'libc.so.6']),
      ...named(['usr/local/lib/libcudart.so.12', 'usr/local/lib/libcudnn.so.9']),
      ...driver('570.10.2'),
    });
    const said = failures(cuda.check(around));
    expect(said).toHaveLength(2);
    expect(said[0]).toMatch(
      /libcudart\.so\.13, libcublas\.so\.13; there: libcudart\.so\.12 → Install CUDA 13/,
    );
    expect(said[1]).toBe(
      'NVIDIA driver: 570.10, CUDA 13 needs 580 or newer → Update the driver to 580 or newer',
    );
  });

  it('tells a loaded driver without its libraries, and platforms without binaries', () => {
    const version = driver('580.65.06')['proc/driver/nvidia/version'];
    const around = machine({ ...named(PROVIDER_LIBRARIES), 'proc/driver/nvidia/version': version });
    expect(failures(cuda.check(around)).at(-1)).toMatch(/580\.65 is loaded, libcuda\.so\.1 is not/);
    expect(failures(cuda.check({ ...around, platform: 'darwin' }))[0]).toMatch(
      /none for darwin x64 → .*webgpu/,
    );
  });

  it('reads what a library asks for, and nothing from files that are none', () => {
    const { root } = machine({
      'a.so': elf(['libx.so.1', 'liby.so']),
      'b.so': 'text',
      'c.so': elf(['libz.so']).slice(0, 0x110),
    });
    expect(neededLibraries(join(root, 'a.so'))).toEqual(['libx.so.1', 'liby.so']);
    expect(neededLibraries(join(root, 'b.so'))).toEqual([]);
    expect(neededLibraries(join(root, 'c.so'))).toEqual([]);
  });
});

describe('what WebGPU needs', () => {
  const icd = (library: string) =>
    JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: library } });
  const loader = { 'usr/lib/libvulkan.so.1': '' };

  it('asks for the loader and a driver whose library is there', () => {
    expect(failures(webgpu.check(machine({})))).toHaveLength(2);
    const gone = machine({ ...loader, 'usr/share/vulkan/icd.d/nvidia_icd.json': icd('libGLX_nvidia.so.0') });
    expect(failures(webgpu.check(gone))[0]).toMatch(
      /names libGLX_nvidia\.so\.0, which is not on the library path/,
    );
    const there = machine({
      ...loader,
      'usr/lib/libGLX_nvidia.so.0': '',
      'usr/share/vulkan/icd.d/nvidia_icd.json': icd('libGLX_nvidia.so.0'),
    });
    expect(failures(webgpu.check(there))).toEqual([]);
  });

  it('takes the driver that the environment names, and tells broken files', () => {
    const files = {
      ...loader,
      'd/a.json': icd('./lib.so'),
      'd/lib.so': '',
      'd/b.json': '{',
      'd/c.json': icd('/no/lib.so'),
    };
    const said = (name: string) =>
      failures(webgpu.check(machine(files, { VK_ICD_FILENAMES: `@/d/${name}` })));
    expect(said('a.json')).toEqual([]);
    expect(said('b.json')[0]).toMatch(/b\.json is not readable as JSON/);
    expect(said('c.json')[0]).toMatch(/names \/no\/lib\.so, which is missing/);
    expect(said('d.json')[0]).toMatch(/d\.json does not exist/);
  });
});

describe('providers', () => {
  it('are asked for by name', async () => {
    expect([...PROVIDERS.keys()]).toEqual(['cpu', 'webgpu', 'cuda', 'tensorrt', 'dml', 'coreml']);
    await refuses(() => providerOf('rocm'), 'E_USAGE', /no execution provider 'rocm'.*webgpu/);
  });

  it.each([
    [
      'cuda',
      'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library',
      'E_UNSUPPORTED',
      /CUDA is not available here.*doctor --ep cuda/,
    ],
    [
      'webgpu',
      '/onnxruntime_src/a.cc:1 f() x == y was false. Failed to get a WebGPU adapter: No supported adapters',
      'E_UNSUPPORTED',
      /said: Failed to get a WebGPU adapter.*doctor --ep webgpu/,
    ],
    [
      'cuda',
      "Non-zero status code returned while running MatMul node. Name:'m' Status Message: CUDA failure 2: out of memory",
      'E_RUNTIME',
      /out of memory on CUDA.*--micro-batch/,
    ],
    ['webgpu', 'Device was lost: GPU reset', 'E_RUNTIME', /device of WebGPU was lost.*--resume/],
    [
      'webgpu',
      'Program Gather requires f16 but the device does not support it.',
      'E_UNSUPPORTED',
      /no half precision/,
    ],
    [
      'cuda',
      'Could not find an implementation for Trilu(14) node',
      'E_UNSUPPORTED',
      /no kernel for Trilu on CUDA/,
    ],
  ] as const)('%s: %s', (ep, said, code, message) => {
    const error = ortError(said, 'm.onnx', providerOf(ep));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });
});
