/** Sessions from whatever names a model: a path, encoded bytes, or a model in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { decodeModel, encodeModel, readModel, writeModel } from '../src/onnx/index.js';
import type { Session, SessionHost, SessionOptions } from './session.js';

export type ModelSource = string | Uint8Array | Model;

/** Models above this are passed through a temporary file: protobuf messages end at 2 GiB. */
const IN_MEMORY_LIMIT = 1 << 30;

export interface OpenModel {
  readonly model: Model;
  readonly session: Session;
  /** Path, or what the model is called in messages. */
  readonly label: string;
  /** Releases the session and removes temporary files. */
  close(): Promise<void>;
}

/** Decodes a model and loads it into a session. */
export async function openModel(
  host: SessionHost,
  source: ModelSource,
  options: SessionOptions = {},
  label = 'model',
): Promise<OpenModel> {
  if (typeof source === 'string' || source instanceof Uint8Array) {
    const path = typeof source === 'string';
    const model = path ? readModel(source) : decodeModel(source);
    const session = await host.createSession(source, options);
    return { model, session, label: path ? source : label, close: () => session.release() };
  }
  const name = source.path ?? label;
  if (weightBytes(source) <= IN_MEMORY_LIMIT) {
    const session = await host.createSession(await encodeModel(source), options);
    return { model: source, session, label: name, close: () => session.release() };
  }
  const folder = await mkdtemp(join(tmpdir(), 'peft-compile-'));
  const path = join(folder, 'model.onnx');
  await writeModel(source, path, { externalData: 'file' });
  const session = await host.createSession(path, options);
  return {
    model: source,
    session,
    label: name,
    close: async () => {
      await session.release();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function weightBytes(model: Model): number {
  let bytes = 0;
  for (const graph of walkGraphs(model.graph))
    for (const value of graph.initializers) bytes += value.tensor?.data.byteLength ?? 0;
  return bytes;
}
