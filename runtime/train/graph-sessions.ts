/**
 * The sessions of the training graphs. A provider that runs graphs as they are has one per graph; for one that needs
 * fixed sizes each size of the batch has its own, the last few of which are kept.
 */
import type { DeviceNeeds } from '../../passes/portable/device.js';
import { lowerForDevice } from '../../passes/portable/device.js';
import { fail } from '../../src/errors.js';
import type { GraphName, TrainArtifacts } from '../artifacts.js';
import { providerOf } from '../ep/index.js';
import { decoded, type LoadedSession, loadSession, type ModelSource } from '../model-session.js';
import type { Session, SessionHost, SessionOptions } from '../session.js';

/** Dims of the batch by input name. */
export type BatchSizes = Readonly<Record<string, readonly number[]>>;

/** Sizes per graph that keep their sessions; each holds the frozen weights of its own. */
const KEPT = 2;

export class GraphSessions {
  readonly #artifacts: TrainArtifacts;
  readonly #host: SessionHost;
  readonly #options: SessionOptions;
  readonly #needs: DeviceNeeds | undefined;
  /** Per graph by sizes, the one used last at the end. */
  readonly #open = new Map<GraphName, Map<string, Promise<LoadedSession>>>();

  constructor(artifacts: TrainArtifacts, host: SessionHost, options: SessionOptions) {
    this.#artifacts = artifacts;
    this.#host = host;
    this.#options = options;
    this.#needs = providerOf(options.ep).needs;
  }

  /** Whether a session can be made before the first batch is known. */
  isSettled(graph: GraphName): boolean {
    const inputs = new Set(this.#artifacts.manifest.graphs[graph]?.inputs);
    return (
      this.#needs?.fixedSizes !== true ||
      this.#artifacts.manifest.batch.every(
        ({ name, shape }) => !inputs.has(name) || shape.every((dim) => typeof dim === 'number'),
      )
    );
  }

  /** The session of a graph for batches of these sizes. */
  async session(graph: GraphName, sizes: BatchSizes = {}): Promise<Session> {
    const known = this.#open.get(graph) ?? new Map<string, Promise<LoadedSession>>();
    this.#open.set(graph, known);
    const key = this.#needs?.fixedSizes === true ? JSON.stringify(Object.entries(sizes).sort()) : '';
    const loaded = known.get(key) ?? this.#load(graph, sizes);
    known.delete(key);
    known.set(key, loaded);
    for (const [old, unused] of known) {
      if (known.size <= KEPT) break;
      known.delete(old);
      await (await unused).dispose();
    }
    return (await loaded).session;
  }

  async close(): Promise<void> {
    const loaded = [...this.#open.values()].flatMap((sessions) => [...sessions.values()]);
    for (const one of await Promise.allSettled(loaded))
      if (one.status === 'fulfilled') await one.value.dispose();
    this.#open.clear();
  }

  #load(graph: GraphName, sizes: BatchSizes): Promise<LoadedSession> {
    const { manifest, graphs } = this.#artifacts;
    const source =
      graphs[graph] ??
      fail('E_USAGE', {
        message: `The training artifacts have no ${graph} graph`,
        remedy: 'Emit the graphs again.',
      });
    const { loss, weight, gradNorm, metrics, model } = manifest.outputs;
    const read = new Set([loss, weight, gradNorm, ...[...metrics, ...model].map(({ name }) => name)]);
    const onDevice = manifest.graphs[graph]?.outputs.filter((name) => !read.has(name)) ?? [];
    return loadSession(this.#host, this.#lowered(source, sizes), { ...this.#options, onDevice });
  }

  #lowered(source: ModelSource, sizes: BatchSizes): ModelSource {
    if (this.#needs === undefined) return source;
    const model = decoded(source);
    const fixed = Object.fromEntries(Object.entries(sizes).filter(([name]) => hasInput(model, name)));
    return lowerForDevice(model, this.#needs, fixed);
  }
}

function hasInput(model: ReturnType<typeof decoded>, wanted: string): boolean {
  return model.graph.inputs.some(({ name }) => name === wanted);
}
