/**
 * The sessions of the training graphs. A provider that runs graphs as they are has one per graph; for one that needs
 * fixed sizes each size of the batch has its own, the last few of which are kept.
 */
import type { DeviceNeeds } from '../../passes/portable/device.js';
import { lowerForDevice } from '../../passes/portable/device.js';
import type { EvalManifest, StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import type { GraphName } from '../artifacts.js';
import { fitFeeds } from '../ep/feeds.js';
import { providerOf } from '../ep/index.js';
import type { HostTensor } from '../host-tensor.js';
import { decoded, type LoadedSession, loadSession, type ModelSource } from '../model-session.js';
import type { RunRequest, Session, SessionHost, SessionOptions, Tensors } from '../session.js';

/** Dims of the batch by input name. */
export type BatchSizes = Readonly<Record<string, readonly number[]>>;

/** Graphs and what their manifest says of them: all of the step target, or the eval graph alone. */
export interface DrivenGraphs {
  readonly manifest: StepManifest | EvalManifest;
  /** Graphs by role: paths, bytes or models. */
  readonly graphs: Readonly<Partial<Record<GraphName, ModelSource>>>;
}

/** Sizes per graph that keep their sessions; each holds the frozen weights of its own. */
const KEPT = 2;

export class GraphSessions {
  readonly #artifacts: DrivenGraphs;
  readonly #host: SessionHost;
  readonly #options: SessionOptions;
  readonly #needs: DeviceNeeds | undefined;
  /** Per graph by sizes, the one used last at the end. */
  readonly #open = new Map<GraphName, Map<string, Promise<LoadedSession>>>();

  constructor(artifacts: DrivenGraphs, host: SessionHost, options: SessionOptions) {
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

  /** The session of a graph for batches of these sizes; those of inputs that it has not are left out. */
  async session(graph: GraphName, all: BatchSizes = {}): Promise<Session> {
    const sizes = this.#sizes(graph, all);
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

  /** Runs a graph on those of the feeds that it has inputs for. Their buffers are given away. */
  async run(
    graph: GraphName,
    given: Tensors,
    request: Omit<RunRequest, 'feeds' | 'transfer'>,
  ): Promise<Record<string, HostTensor>> {
    const inputs = new Set(this.#artifacts.manifest.graphs[graph]?.inputs);
    const feeds = Object.fromEntries(Object.entries(given).filter(([name]) => inputs.has(name)));
    const session = await this.session(graph, sizesOf(feeds));
    return session.runWith({ ...request, feeds: fitFeeds(session.inputs, feeds), transfer: true });
  }

  async close(): Promise<void> {
    const loaded = [...this.#open.values()].flatMap((sessions) => [...sessions.values()]);
    for (const one of await Promise.allSettled(loaded))
      if (one.status === 'fulfilled') await one.value.dispose();
    this.#open.clear();
  }

  /** What `all` says of the batch inputs of a graph. */
  #sizes(graph: GraphName, all: BatchSizes): BatchSizes {
    const inputs = new Set(this.#artifacts.manifest.graphs[graph]?.inputs);
    return Object.fromEntries(
      this.#artifacts.manifest.batch.flatMap(({ name }) => {
        const dims = all[name];
        return inputs.has(name) && dims !== undefined ? [[name, dims]] : [];
      }),
    );
  }

  #load(graph: GraphName, sizes: BatchSizes): Promise<LoadedSession> {
    const { manifest, graphs } = this.#artifacts;
    const source =
      graphs[graph] ??
      fail('E_USAGE', {
        message: `The training artifacts have no ${graph} graph`,
        remedy: 'Emit the graphs again.',
      });
    const { loss, weight, metrics, model, ...others } = manifest.outputs;
    const named = [...metrics, ...model].map(({ name }) => name);
    const read = new Set([loss, weight, ...Object.values(others), ...named]);
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

/** Dims by name. */
export function sizesOf(feeds: Tensors): BatchSizes {
  return Object.fromEntries(Object.entries(feeds).map(([name, { dims }]) => [name, dims]));
}

function hasInput(model: ReturnType<typeof decoded>, wanted: string): boolean {
  return model.graph.inputs.some(({ name }) => name === wanted);
}
