/** Execution providers by name. */
import { fail } from '../../src/errors.js';
import { cpu } from './cpu.js';
import { cuda, tensorrt } from './cuda.js';
import { coreml, dml } from './platform-gpus.js';
import type { ExecutionProvider } from './provider.js';
import { webgpu } from './webgpu.js';

export type { ExecutionProvider, Finding, Surroundings } from './provider.js';

export const PROVIDERS: ReadonlyMap<string, ExecutionProvider> = new Map(
  [cpu, webgpu, cuda, tensorrt, dml, coreml].map((provider) => [provider.id, provider]),
);

/** @throws E_USAGE for a name that is none. */
export function providerOf(id = 'cpu'): ExecutionProvider {
  return (
    PROVIDERS.get(id) ??
    fail('E_USAGE', {
      message: `There is no execution provider '${id}'`,
      remedy: `Use one of: ${[...PROVIDERS.keys()].join(', ')}`,
    })
  );
}
