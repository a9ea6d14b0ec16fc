/**
 * Drives the graphs of a manifest. Parameters, optimizer state and gradient sums are resident in the session thread and
 * rotate from outputs to inputs; the batch and a few scalars go in, the loss and its companions come back.
 */
import type { CarriedTensor, StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import type { GraphName, TrainArtifacts } from '../artifacts.js';
import { filledTensor, type HostTensor, numbersOf, scalarOf, scalarTensor } from '../host-tensor.js';
import { type RunRequest, SessionHost, type SessionOptions, type Tensors } from '../session.js';
import { runEval } from './eval-run.js';
import { GraphSessions } from './graph-sessions.js';
import { LossScaler } from './loss-scaler.js';
import { combined, type Measured, measured, reduce } from './measured.js';

export interface StepScalars {
  readonly lr: number;
  /** Number of the optimizer step, from 1. */
  readonly step: number;
  /** Seed of each micro-batch's forward pass. */
  readonly seeds: readonly number[];
}

export interface StepResult extends Measured {
  /** Global 2-norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** The gradient overflowed under the loss scale: nothing has changed. */
  readonly skipped: boolean;
}

/** Parameters and gradients between two steps, on the host's side of wherever they live. */
export interface ResidentParams {
  /** Values by key. */
  read(keys: readonly string[]): Promise<Map<string, HostTensor>>;
  /** Replaces values by key. */
  write(tensors: ReadonlyMap<string, HostTensor>): Promise<void>;
  /**
   * Gradients of the last step by key, as the optimizer used them: of the mean loss, clipped. Without accumulation only
   * those that were watched.
   */
  gradients(keys: readonly string[]): Promise<Map<string, Float32Array>>;
}

/** Input name → resident key, and output name → resident key. */
interface Rotation {
  readonly resident: Readonly<Record<string, string>>;
  readonly keep: Readonly<Record<string, string>>;
}

export class Stepper implements ResidentParams {
  readonly manifest: StepManifest;
  readonly #artifacts: TrainArtifacts;
  readonly #host = new SessionHost();
  readonly #sessions: GraphSessions;
  #watched: ReadonlyMap<string, string> = new Map();
  /** Global norm of the last gradient, before clipping. */
  #gradNorm = 0;
  /** The factor on the loss, for half-precision graphs. */
  readonly scaler: LossScaler;

  constructor(artifacts: TrainArtifacts, options: SessionOptions = {}) {
    this.manifest = artifacts.manifest;
    this.#artifacts = artifacts;
    this.scaler = new LossScaler(artifacts.manifest);
    // A plan of the activations would hold the peak of the forward and of the backward pass apart; it saves no time here.
    this.#sessions = new GraphSessions(artifacts, this.#host, { memPattern: false, ...options });
  }

  /** Micro-batches per optimizer step. */
  get accumulation(): number {
    return this.manifest.accumulation?.steps ?? 1;
  }

  /** Loads the training graphs, so that the first step is not slower than the others; those whose sizes are known. */
  async open(): Promise<void> {
    const sizes = Object.fromEntries(
      this.manifest.batch.map(({ name, shape }) => [name, shape.filter((dim) => typeof dim === 'number')]),
    );
    for (const graph of ['step', 'grad', 'update'] as const)
      if (this.#artifacts.graphs[graph] !== undefined && this.#sessions.isSettled(graph))
        await this.#sessions.session(graph, sizes);
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
    return this.read(this.manifest.params.map(({ key }) => key));
  }

  async read(keys: readonly string[]): Promise<Map<string, HostTensor>> {
    const tensors = await this.#host.get(keys.map(paramKey));
    return new Map(keys.map((key) => [key, tensors[paramKey(key)] as HostTensor]));
  }

  async write(tensors: ReadonlyMap<string, HostTensor>): Promise<void> {
    await this.#host.put(Object.fromEntries([...tensors].map(([key, tensor]) => [paramKey(key), tensor])));
  }

  /**
   * Keeps the gradients of these parameters from now on.
   * @throws E_USAGE when the graphs do not give them.
   */
  watch(keys: readonly string[]): void {
    const outputs = new Map(this.manifest.params.map(({ key, gradient }) => [key, gradient]));
    this.#watched =
      this.manifest.accumulation === null
        ? new Map(keys.map((key) => [key, outputs.get(key) ?? noGradient(key)]))
        : new Map();
  }

  async gradients(keys: readonly string[]): Promise<Map<string, Float32Array>> {
    const { accumulation, clipping } = this.manifest;
    // As in the update graph: 1e-6 in the clipping factor, 1e-12 as the least weight.
    const clip = clipping === null ? 1 : Math.min(1, clipping.maxNorm / (this.#gradNorm + 1e-6));
    if (accumulation === null) {
      const tensors = await this.#host.get(keys.map(gradientKey));
      return new Map(
        keys.map((key) => [key, scaled(numbersOf(tensors[gradientKey(key)] as HostTensor), clip)]),
      );
    }
    const wanted = new Set(keys);
    const buckets = accumulation.tensors.filter(({ members }) => members.some(({ key }) => wanted.has(key)));
    const tensors = await this.#host.get([...buckets, accumulation.weight].map(sumKey));
    const weight = scalarOf(tensors[sumKey(accumulation.weight)] as HostTensor);
    const factor = clip / Math.max(weight, 1e-12);
    const found = new Map<string, Float32Array>();
    for (const bucket of buckets) {
      const sums = numbersOf(tensors[sumKey(bucket)] as HostTensor);
      for (const { key, offset, count } of bucket.members)
        if (wanted.has(key)) found.set(key, scaled(sums.subarray(offset, offset + count), factor));
    }
    return found;
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
    const { resident } = this.#rotation('eval');
    return runEval(this.#sessions, this.manifest, feeds, { resident, outputs });
  }

  /** Combines measurements of batches into one over all of them. */
  combine(parts: readonly Measured[]): Measured {
    return combined(parts, this.manifest);
  }

  async close(): Promise<void> {
    await this.#sessions.close();
    await this.#host.close();
  }

  async #fused(batches: readonly Tensors[], scalars: StepScalars): Promise<StepResult> {
    const [batch] = batches;
    if (batch === undefined || batches.length > 1)
      fail('E_USAGE', {
        message: `These graphs take one batch per optimizer step, ${batches.length} were given`,
        remedy: 'Emit the graphs with accumulation.',
      });
    const { loss, weight, gradNorm, metrics } = this.manifest.outputs;
    const results = await this.#sessions.run(
      'step',
      { ...batch, ...this.#scalars(scalars, 0) },
      {
        ...this.#watching(this.#rotation('step')),
        fetch: [loss, weight, gradNorm, ...metrics.map(({ name }) => name)],
        ...this.#guard(),
      },
    );
    return { ...reduce([measured(results, this.manifest)], this.manifest), ...this.#stepped(results) };
  }

  async #accumulated(
    batches: readonly Tensors[],
    scalars: StepScalars,
    sums: readonly CarriedTensor[],
  ): Promise<StepResult> {
    const { loss, weight, gradNorm, metrics } = this.manifest.outputs;
    await this.#host.put(Object.fromEntries(sums.map((sum) => [sumKey(sum), initial(sum)])));
    const parts: Measured[] = [];
    for (const [i, batch] of batches.entries()) {
      const results = await this.#sessions.run(
        'grad',
        { ...batch, ...this.#scalars(scalars, i) },
        { ...this.#rotation('grad'), fetch: [loss, weight, ...metrics.map(({ name }) => name)] },
      );
      parts.push(measured(results, this.manifest));
    }
    const results = await this.#sessions.run('update', this.#scalars(scalars, 0), {
      ...this.#rotation('update'),
      fetch: [gradNorm],
      ...this.#guard(),
    });
    return { ...reduce(parts, this.manifest), ...this.#stepped(results) };
  }

  /** An overflow under a dynamic scale must leave parameters and state as they are. */
  #guard(): Pick<RunRequest, 'ifFinite'> {
    return this.scaler.dynamic ? { ifFinite: [this.manifest.outputs.gradNorm] } : {};
  }

  #stepped(results: Tensors): { gradNorm: number; skipped: boolean } {
    this.#gradNorm = scalarOf(results[this.manifest.outputs.gradNorm] as HostTensor);
    return { gradNorm: this.#gradNorm, skipped: this.scaler.note(this.#gradNorm) };
  }

  #scalars({ lr, step, seeds }: StepScalars, forward: number): Record<string, HostTensor> {
    const { scale, skipped } = this.scaler;
    // The optimizer's count is of the steps that it took: bias corrections depend on it.
    const values = { lr, step: step - skipped, seed: (seeds[forward] ?? 0) % 2 ** 31, lossScale: scale };
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

  #watching({ resident, keep }: Rotation): Rotation {
    const gradients = [...this.#watched].map(([key, output]) => [output, gradientKey(key)]);
    return { resident, keep: { ...keep, ...Object.fromEntries(gradients) } };
  }
}

function initial(tensor: CarriedTensor): HostTensor {
  return filledTensor(tensor.dtype, tensor.shape, tensor.init);
}

/** Numbers · factor as float32. */
function scaled(numbers: ArrayLike<number>, factor: number): Float32Array {
  return Float32Array.from(numbers, (value) => value * factor);
}

function noGradient(key: string): never {
  return fail('E_USAGE', {
    message: `The graphs give no gradient of '${key}', which the method's procedure reads`,
    remedy: 'Emit the graphs again, with the method at hand.',
  });
}

function gradientKey(key: string): string {
  return `gradient/${key}`;
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
