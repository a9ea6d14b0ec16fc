/** Sessions from whatever names a model: a path, encoded bytes, or a model in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { decodeModel, encodeModel, readModel, writeModel } from '../src/onnx/index.js';
import type { Session, SessionHost, SessionOptions } from './session.js';

export type ModelSource = string | Uint8Array | Model;

/** Models above this are passed through a temporary file: protobuf messages end at 2 GiB. */
const IN_MEMORY_LIMIT = 1 << 30;

export interface LoadedSession {
  readonly session: Session;
  /** Releases the session and removes temporary files. */
  dispose(): Promise<void>;
}

export interface OpenModel extends LoadedSession {
  readonly model: Model;
  /** Path, or what the model is called in messages. */
  readonly label: string;
}

/** Loads a model into a session. */
export async function loadSession(
  host: SessionHost,
  source: ModelSource,
  options: SessionOptions = {},
): Promise<LoadedSession> {
  if (typeof source === 'string' || source instanceof Uint8Array) {
    const session = await host.createSession(source, options);
    return { session, dispose: () => session.release() };
  }
  if (weightBytes(source) <= IN_MEMORY_LIMIT) {
    const folder = source.path === undefined ? {} : { externalFolder: dirname(source.path) };
    const session = await host.createSession(encodeModel(source), { ...folder, ...options });
    return { session, dispose: () => session.release() };
  }
  const folder = await mkdtemp(join(tmpdir(), 'peft-compile-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  try {
    const path = join(folder, 'model.onnx');
    await writeModel(source, path, { externalData: 'file' });
    const session = await host.createSession(path, options);
    return {
      session,
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
  const decoded = typeof source === 'string' ? readModel(source) : undefined;
  const model = decoded ?? (source instanceof Uint8Array ? decodeModel(source) : (source as Model));
  return { model, label: model.path ?? label, ...(await loadSession(host, source, options)) };
}

function weightBytes(model: Model): number {
  let bytes = 0;
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) bytes += value.tensor?.data.byteLength ?? 0;
  return bytes;
}
