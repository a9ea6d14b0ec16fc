/**
 * A GPU for tests: the one of the machine where WebGPU finds a Vulkan driver, and else SwiftShader, the Vulkan driver on
 * the CPU that Debian's chromium package brings along, with its loader.
 */
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { surroundings } from '../../runtime/ep/surroundings.js';
import { webgpu } from '../../runtime/ep/webgpu.js';

const CHROMIUM = ['/usr/lib/chromium', '/usr/lib64/chromium', '/usr/lib/chromium-browser'];

/** glibc's flag for libraries that stay loaded. */
const RTLD_NODELETE = 0x1000;

/**
 * Undefined where WebGPU can be used, otherwise why it cannot. To be called in the main thread of a process before it
 * uses WebGPU: the driver is chosen by an environment variable of the process.
 */
export function whyNoGpu(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const missing = problems();
  if (missing.length === 0) return undefined;
  const folder = CHROMIUM.find((path) => existsSync(join(path, 'vk_swiftshader_icd.json')));
  if (folder === undefined)
    return `no Vulkan driver (${missing.join('; ')}), and no chromium package with SwiftShader`;
  process.env.VK_ICD_FILENAMES = join(folder, 'vk_swiftshader_icd.json');
  const left = problems();
  if (left.length === 0) return undefined;
  // The loader is not on the library path; loaded once, it is found by its name.
  const loader = join(folder, 'libvulkan.so.1');
  if (!existsSync(loader)) return left.join('; ');
  try {
    process.dlopen(
      { exports: {} },
      loader,
      constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL | RTLD_NODELETE,
    );
  } catch (error) {
    // It is no addon of Node, which says so after it has loaded it.
    if (!String(error).includes('self-register')) return String(error);
  }
  return undefined;
}

function problems(): string[] {
  return webgpu
    .check(surroundings())
    .filter(({ ok }) => !ok)
    .map(({ found }) => found);
}
