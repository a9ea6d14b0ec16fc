/** Sessions from whatever names a model: a path, encoded bytes, or a model in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PeftCompileError } from '../src/errors.js';
import { walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { decodeModel, encodeModel, readModel, writeModel } from '../src/onnx/index.js';
import { providerOf } from './ep/index.js';
import { withoutKernel } from './ep/placement.js';
import type { Session, SessionHost, SessionOptions } from './session.js';
import { hasBfloat16, widenBfloat16 } from './widen.js';

export type ModelSource = string | Uint8Array | Model;

/**
 * Models with more weights than this go through temporary files, their weights as external data: ONNX Runtime maps such
 * files instead of holding a copy, and protobuf messages end at 2 GiB anyway.
 */
const IN_MEMORY_LIMIT = 64 << 20;

export interface LoadedSession {
  readonly session: Session;
  /** True when bfloat16 is computed in float32. */
  readonly widened: boolean;
  /** Releases the session and removes temporary files. */
  dispose(): Promise<void>;
}

export interface OpenModel extends LoadedSession {
  readonly model: Model;
  /** Path, or what the model is called in messages. */
  readonly label: string;
}

/**
 * Loads a model into a session. A model with bfloat16 that the provider cannot run is computed in float32 instead: same
 * numbers, wider arithmetic; its bfloat16 inputs and outputs are then float32.
 */
export async function loadSession(
  host: SessionHost,
  source: ModelSource,
  options: SessionOptions = {},
): Promise<LoadedSession> {
  try {
    return await loadAsIs(host, source, options);
  } catch (error) {
    if (!(error instanceof PeftCompileError && error.code === 'E_UNSUPPORTED')) throw error;
    const model = decoded(source);
    if (!hasBfloat16(model)) throw namingOperators(error, model, options);
    return { ...(await loadAsIs(host, widenBfloat16(model), options)), widened: true };
  }
}

/** Where nodes were refused for want of a kernel, the operators that the provider is known to lack. */
function namingOperators(
  error: PeftCompileError,
  model: Model,
  { ep, cpuFallback }: SessionOptions,
): PeftCompileError {
  const missing = cpuFallback === false ? withoutKernel(model, providerOf(ep)) : undefined;
  if (missing === undefined || !/default CPU EP|disable_cpu_ep_fallback/.test(error.message)) return error;
  return new PeftCompileError(error.code, {
    message: `${providerOf(ep).title} has no kernel for ${missing}`,
    ...(error.where === undefined ? {} : { where: error.where }),
    remedy: 'Allow the CPU to run these nodes (without --no-cpu-fallback), or use another provider.',
    cause: error,
  });
}

/** The model itself, read or decoded where it is not in memory. */
export function decoded(source: ModelSource): Model {
  if (typeof source === 'string') return readModel(source);
  return source instanceof Uint8Array ? decodeModel(source) : source;
}

async function loadAsIs(
  host: SessionHost,
  source: ModelSource,
  options: SessionOptions,
): Promise<LoadedSession> {
  if (typeof source === 'string' || source instanceof Uint8Array) {
    const session = await host.createSession(source, options);
    return { session, widened: false, dispose: () => session.release() };
  }
  if (weightBytes(source) <= IN_MEMORY_LIMIT) {
    const folder = source.path === undefined ? {} : { externalFolder: dirname(source.path) };
    const session = await host.createSession(encodeModel(source), { ...folder, ...options });
    return { session, widened: false, dispose: () => session.release() };
  }
  const folder = await mkdtemp(join(tmpdir(), 'peft-compile-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  try {
    const path = join(folder, 'model.onnx');
    await writeModel(source, path, { externalData: 'file', weights: 'link' });
    const session = await host.createSession(path, options);
    return {
      session,
      widened: false,
      dispose: async () => {
        await session.release();
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** Decodes a model and loads it into a session. */
export async function openModel(
  host: SessionHost,
  source: ModelSource,
  options: SessionOptions = {},
  label = 'model in memory',
): Promise<OpenModel> {
  const model = decoded(source);
  return { model, label: model.path ?? label, ...(await loadSession(host, source, options)) };
}

function weightBytes(model: Model): number {
  let bytes = 0;
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) bytes += value.tensor?.data.byteLength ?? 0;
  return bytes;
}
