/** What the checks of providers look at, on this machine. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { linkerFolders } from './libraries.js';
import type { Surroundings } from './provider.js';

export function surroundings(): Surroundings {
  const home = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  return {
    platform: process.platform,
    arch: process.arch,
    env: process.env,
    binaries: join(home, 'bin/napi-v6', process.platform, process.arch),
    libraryFolders: process.platform === 'linux' ? linkerFolders() : [],
    root: '/',
  };
}
