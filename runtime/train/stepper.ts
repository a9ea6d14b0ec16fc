/**
 * Drives the graphs of a manifest. Parameters, optimizer state and gradient sums are resident in the session thread and
 * rotate from outputs to inputs; the batch and a few scalars go in, the loss and its companions come back.
 */
import type { CarriedTensor, StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import type { GraphName, TrainArtifacts } from '../artifacts.js';
import { filledTensor, type HostTensor, scalarOf, scalarTensor } from '../host-tensor.js';
import { type LoadedSession, loadSession } from '../model-session.js';
import { SessionHost, type SessionOptions, type Tensors } from '../session.js';

export interface StepScalars {
  readonly lr: number;
  /** Number of the optimizer step, from 1. */
  readonly step: number;
  /** Seed of each micro-batch's forward pass. */
  readonly seeds: readonly number[];
}

/** Loss and metrics over some batches. */
export interface Measured {
  /** Mean loss. */
  readonly loss: number;
  /** What the mean divides by: tokens, rows or elements that count. */
  readonly weight: number;
  /** Metrics by name, reduced as the manifest says. */
  readonly metrics: Readonly<Record<string, number>>;
}

export interface StepResult extends Measured {
  /** Global 2-norm of the gradient before clipping. */
  readonly gradNorm: number;
}

/** Input name → resident key, and output name → resident key. */
interface Rotation {
  readonly resident: Readonly<Record<string, string>>;
  readonly keep: Readonly<Record<string, string>>;
}

export class Stepper {
  readonly manifest: StepManifest;
  readonly #artifacts: TrainArtifacts;
  readonly #options: SessionOptions;
  readonly #host = new SessionHost();
  readonly #sessions = new Map<GraphName, Promise<LoadedSession>>();

  constructor(artifacts: TrainArtifacts, options: SessionOptions = {}) {
    this.manifest = artifacts.manifest;
    this.#artifacts = artifacts;
    // A plan of the activations would hold the peak of the forward and of the backward pass apart; it saves no time here.
    this.#options = { memPattern: false, ...options };
  }

  /** Micro-batches per optimizer step. */
  get accumulation(): number {
    return this.manifest.accumulation?.steps ?? 1;
  }

  /** Loads the training graphs, so that the first step is not slower than the others. */
  async open(): Promise<void> {
    for (const graph of ['step', 'grad', 'update'] as const)
      if (this.#artifacts.graphs[graph] !== undefined) await this.#session(graph);
  }

  /** Puts parameters and optimizer state (fresh where `state` has none) in place. */
  async load(params: ReadonlyMap<string, HostTensor>, state: Tensors = {}): Promise<void> {
    const tensors: Record<string, HostTensor> = {};
    for (const { key } of this.manifest.params) {
      const tensor = params.get(key);
      if (tensor === undefined)
        fail('E_INVALID_DATA', { message: `There is no value for parameter '${key}'` });
      else tensors[paramKey(key)] = tensor;
    }
    for (const slot of this.manifest.optimizer.state)
      tensors[stateKey(slot)] = state[slot.input] ?? initial(slot);
    await this.#host.put(tensors);
  }

  /** Parameters by adapter key. */
  async params(): Promise<Map<string, HostTensor>> {
    const keys = this.manifest.params.map(({ key }) => key);
    const tensors = await this.#host.get(keys.map(paramKey));
    return new Map(keys.map((key) => [key, tensors[paramKey(key)] as HostTensor]));
  }

  /** Optimizer state by input name. */
  async state(): Promise<Record<string, HostTensor>> {
    const slots = this.manifest.optimizer.state;
    const tensors = await this.#host.get(slots.map(stateKey));
    return Object.fromEntries(slots.map((slot) => [slot.input, tensors[stateKey(slot)] as HostTensor]));
  }

  /** One optimizer step over the micro-batches. The buffers of the feeds are given away. */
  async step(batches: readonly Tensors[], scalars: StepScalars): Promise<StepResult> {
    const { accumulation } = this.manifest;
    return accumulation === null
      ? this.#fused(batches, scalars)
      : this.#accumulated(batches, scalars, [...accumulation.tensors, accumulation.weight]);
  }

  /** Loss, metrics and, when named, outputs of the model on one batch, without dropout. */
  async evaluate(
    feeds: Tensors,
    outputs: readonly string[] = [],
  ): Promise<Measured & { readonly outputs: Tensors }> {
    const session = await this.#session('eval');
    const { loss, weight, metrics } = this.manifest.outputs;
    const results = await session.runWith({
      feeds: this.#pick('eval', feeds, {}),
      resident: this.#rotation('eval').resident,
      fetch: [loss, weight, ...metrics.map(({ name }) => name), ...outputs],
      transfer: true,
    });
    return {
      ...reduce([this.#measure(results)], this.manifest),
      outputs: Object.fromEntries(outputs.map((name) => [name, results[name] as HostTensor])),
    };
  }

  /** Combines measurements of batches into one over all of them. */
  combine(parts: readonly Measured[]): Measured {
    return reduce(
      parts.map((part) => ({ ...part, metrics: unreduced(part, this.manifest) })),
      this.manifest,
    );
  }

  async close(): Promise<void> {
    for (const loaded of await Promise.allSettled(this.#sessions.values()))
      if (loaded.status === 'fulfilled') await loaded.value.dispose();
    await this.#host.close();
  }

  async #fused(batches: readonly Tensors[], scalars: StepScalars): Promise<StepResult> {
    const [batch] = batches;
    if (batch === undefined || batches.length > 1)
      fail('E_USAGE', {
        message: `These graphs take one batch per optimizer step, ${batches.length} were given`,
        remedy: 'Emit the graphs with accumulation.',
      });
    const session = await this.#session('step');
    const { loss, weight, gradNorm, metrics } = this.manifest.outputs;
    const results = await session.runWith({
      feeds: this.#pick('step', batch ?? {}, this.#scalars(scalars, 0)),
      ...this.#rotation('step'),
      fetch: [loss, weight, gradNorm, ...metrics.map(({ name }) => name)],
      transfer: true,
    });
    return {
      ...reduce([this.#measure(results)], this.manifest),
      gradNorm: scalarOf(results[gradNorm] as HostTensor),
    };
  }

  async #accumulated(
    batches: readonly Tensors[],
    scalars: StepScalars,
    sums: readonly CarriedTensor[],
  ): Promise<StepResult> {
    const grad = await this.#session('grad');
    const update = await this.#session('update');
    const { loss, weight, gradNorm, metrics } = this.manifest.outputs;
    await this.#host.put(Object.fromEntries(sums.map((sum) => [sumKey(sum), initial(sum)])));
    const parts: Measured[] = [];
    for (const [i, batch] of batches.entries()) {
      const results = await grad.runWith({
        feeds: this.#pick('grad', batch, this.#scalars(scalars, i)),
        ...this.#rotation('grad'),
        fetch: [loss, weight, ...metrics.map(({ name }) => name)],
        transfer: true,
      });
      parts.push(this.#measure(results));
    }
    const results = await update.runWith({
      feeds: this.#pick('update', {}, this.#scalars(scalars, 0)),
      ...this.#rotation('update'),
      fetch: [gradNorm],
      transfer: true,
    });
    return {
      ...reduce(parts, this.manifest),
      gradNorm: scalarOf(results[gradNorm] as HostTensor),
    };
  }

  /** The feeds that a graph has inputs for. */
  #pick(graph: GraphName, batch: Tensors, scalars: Tensors): Tensors {
    const inputs = new Set(this.manifest.graphs[graph]?.inputs);
    const all = { ...batch, ...scalars };
    return Object.fromEntries(Object.entries(all).filter(([name]) => inputs.has(name)));
  }

  #scalars({ lr, step, seeds }: StepScalars, forward: number): Record<string, HostTensor> {
    const values = { lr, step, seed: (seeds[forward] ?? 0) % 2 ** 31 };
    return Object.fromEntries(
      this.manifest.scalars.map(({ name, dtype, role }) => [name, scalarTensor(dtype, values[role])]),
    );
  }

  #rotation(graph: GraphName): Rotation {
    const { params, optimizer, accumulation } = this.manifest;
    const file = this.manifest.graphs[graph];
    const inputs = new Set(file?.inputs);
    const outputs = new Set(file?.outputs);
    const all = [
      ...params.map(({ key, input, output }) => ({ input, output, at: paramKey(key) })),
      ...optimizer.state.map((slot) => ({ ...slot, at: stateKey(slot) })),
      ...(accumulation === null ? [] : [...accumulation.tensors, accumulation.weight]).map((sum) => ({
        ...sum,
        at: sumKey(sum),
      })),
    ];
    return {
      resident: Object.fromEntries(
        all.filter(({ input }) => inputs.has(input)).map(({ input, at }) => [input, at]),
      ),
      keep: Object.fromEntries(
        all.filter(({ output }) => outputs.has(output)).map(({ output, at }) => [output, at]),
      ),
    };
  }

  #measure(results: Tensors): Measured {
    const { loss, weight, metrics } = this.manifest.outputs;
    const read = (name: string) => scalarOf(results[name] as HostTensor);
    return {
      loss: read(loss),
      weight: read(weight),
      metrics: Object.fromEntries(metrics.map(({ name }) => [name, read(name)])),
    };
  }

  async #session(graph: GraphName) {
    let loaded = this.#sessions.get(graph);
    if (loaded === undefined) {
      const source =
        this.#artifacts.graphs[graph] ??
        fail('E_USAGE', {
          message: `The training artifacts have no ${graph} graph`,
          remedy: 'Emit the graphs again.',
        });
      loaded = loadSession(this.#host, source, this.#options);
      this.#sessions.set(graph, loaded);
    }
    return (await loaded).session;
  }
}

/** Mean loss over the weights; metrics as their `reduce` says. */
function reduce(parts: readonly Measured[], manifest: StepManifest): Measured {
  const weight = parts.reduce((sum, part) => sum + part.weight, 0);
  const mean = (value: (part: Measured) => number) =>
    parts.length === 1 && parts[0] !== undefined
      ? value(parts[0])
      : parts.reduce((sum, part) => sum + value(part) * part.weight, 0) / weight;
  const metrics = manifest.outputs.metrics.map(({ name, reduce: how, perWeight }) => {
    if (how === 'mean') return [name, mean((part) => part.metrics[name] ?? 0)] as const;
    const sum = parts.reduce((total, part) => total + (part.metrics[name] ?? 0), 0);
    return [name, perWeight ? sum / weight : sum] as const;
  });
  return { loss: mean((part) => part.loss), weight, metrics: Object.fromEntries(metrics) };
}

/** Metrics of a measurement as the graph gave them: sums before the division by the weight. */
function unreduced(part: Measured, manifest: StepManifest): Record<string, number> {
  return Object.fromEntries(
    manifest.outputs.metrics.map(({ name, reduce: how, perWeight }) => [
      name,
      (part.metrics[name] ?? 0) * (how === 'sum' && perWeight ? part.weight : 1),
    ]),
  );
}

function initial(tensor: CarriedTensor): HostTensor {
  return filledTensor(tensor.dtype, tensor.shape, tensor.init);
}

function paramKey(key: string): string {
  return `param/${key}`;
}
function stateKey(slot: CarriedTensor): string {
  return `state/${slot.input}`;
}
function sumKey(sum: CarriedTensor): string {
  return `sum/${sum.input}`;
}
