/**
 * Drives emitted training graphs in a page, or wherever onnxruntime-web runs: nothing here needs Node. The caller hands
 * over the runtime, the files and the batches; parameters and optimizer state are carried from run to run, on the GPU
 * where the session is.
 */
import type { InferenceSession, Tensor, TensorConstructor } from 'onnxruntime-common';
import type { CarriedTensor, StepManifest } from '../../passes/targets/manifest.js';
import { fail } from '../../src/errors.js';
import { countOf } from '../../src/types.js';
import type { HostTensor } from '../host-tensor.js';
import { LossScaler } from '../train/loss-scaler.js';
import { learningRate } from '../train/schedule.js';
import { InitialValues } from './initial-values.js';
import { ortTensor } from './tensors.js';

/** What is used of `import * as ort from 'onnxruntime-web'`. */
export interface OnnxRuntime {
  readonly InferenceSession: {
    create(model: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  readonly Tensor: TensorConstructor;
}

type GraphName = 'step' | 'grad' | 'update' | 'eval';

/** The files of a folder that `peft-compile emit` wrote, as bytes. */
export interface StepFiles {
  /** `manifest.json`, parsed. */
  readonly manifest: StepManifest;
  /** Models by name; `eval` only for `evaluate`. */
  readonly graphs: Readonly<Partial<Record<GraphName, Uint8Array>>>;
  /** `initial.safetensors`. */
  readonly initial: Uint8Array;
}

export interface StepDriverOptions {
  /** Providers and whatever else sessions take; outputs that are carried stay on the GPU under `webgpu`. */
  readonly session?: InferenceSession.SessionOptions;
  /** Optimizer steps of the whole run, for the schedule; default: as the manifest says, or endless. */
  readonly totalSteps?: number;
  /** Seed of dropout. Default 0. */
  readonly seed?: number;
}

/** Tensors by input name: `Collator` makes them of examples. */
export type Feeds = Readonly<Record<string, HostTensor>>;

export interface StepResult {
  /** Optimizer steps done, this one included. */
  readonly step: number;
  /** Mean loss over what is scored in all micro-batches. */
  readonly loss: number;
  /** Global 2-norm of the gradient before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Whether the gradient overflowed under dynamic loss scaling, so that nothing changed. */
  readonly skipped: boolean;
}

export class StepDriver {
  readonly manifest: StepManifest;
  readonly #ort: OnnxRuntime;
  readonly #sessions: ReadonlyMap<GraphName, InferenceSession>;
  readonly #initial: InitialValues;
  readonly #totalSteps: number;
  readonly #scaler: LossScaler;
  /** Parameters, optimizer state and sums by input name. */
  readonly #carried = new Map<string, Tensor>();
  #seed: number;
  #step = 0;

  private constructor(
    ort: OnnxRuntime,
    files: StepFiles,
    sessions: ReadonlyMap<GraphName, InferenceSession>,
    options: StepDriverOptions,
  ) {
    this.#ort = ort;
    this.manifest = files.manifest;
    this.#sessions = sessions;
    this.#initial = new InitialValues(files.initial);
    this.#totalSteps = options.totalSteps ?? files.manifest.schedule.totalSteps ?? Number.MAX_SAFE_INTEGER;
    this.#scaler = new LossScaler(files.manifest);
    this.#seed = options.seed ?? 0;
    for (const { input, key, shape } of this.manifest.params)
      this.#carry(input, this.#float32(this.#initial.numbers(key, countOf(shape)), shape));
    for (const state of this.manifest.optimizer.state) this.#fill(state);
  }

  /**
   * Opens the sessions. Throws E_USAGE for a manifest of another version or a graph that is missing, E_INVALID_DATA
   * for first values that do not fit.
   */
  static async open(
    ort: OnnxRuntime,
    files: StepFiles,
    options: StepDriverOptions = {},
  ): Promise<StepDriver> {
    const { manifest, graphs } = files;
    if (manifest.schemaVersion !== 1)
      fail('E_USAGE', {
        message: `The manifest has version ${manifest.schemaVersion}, this driver knows version 1`,
        remedy: 'Emit the graphs with the version of peft-compile that the page uses',
      });
    const sessions = new Map<GraphName, InferenceSession>();
    try {
      for (const name of ['step', 'grad', 'update', 'eval'] as const) {
        const model = graphs[name];
        if (manifest.graphs[name] === undefined || (model === undefined && name === 'eval')) continue;
        if (model === undefined)
          return fail('E_USAGE', {
            message: `The graph '${name}' is missing`,
            remedy: `Load ${manifest.graphs[name].file} from the folder of the manifest`,
          });
        sessions.set(name, await ort.InferenceSession.create(model, sessionOptions(manifest, name, options)));
      }
      return new StepDriver(ort, files, sessions, options);
    } catch (error) {
      for (const session of sessions.values()) await session.release();
      throw error;
    }
  }

  /** One optimizer step over one batch, or over `accumulation.steps` micro-batches. */
  async step(batches: readonly Feeds[]): Promise<StepResult> {
    const { outputs, accumulation, schedule } = this.manifest;
    const wanted = accumulation?.steps ?? 1;
    if (batches.length !== wanted)
      fail('E_USAGE', {
        message: `A step takes ${wanted} batches, not ${batches.length}`,
        remedy: 'The graphs fix the number of micro-batches: emit them with another --accumulation',
      });
    this.#step++;
    const rate = learningRate({ ...schedule, totalSteps: this.#totalSteps }, this.#step);
    // The optimizer's count is of the steps that it took.
    const scalars = { lr: rate, step: this.#step - this.#scaler.skipped };
    let loss = 0;
    let weight = 0;
    let last: InferenceSession.ReturnType = {};
    for (const sum of accumulation === null ? [] : [...accumulation.tensors, accumulation.weight])
      this.#fill(sum);
    for (const feeds of batches) {
      last = await this.#run(accumulation === null ? 'step' : 'grad', feeds, scalars);
      const share = scalar(last, outputs.weight);
      loss += scalar(last, outputs.loss) * share;
      weight += share;
    }
    if (accumulation !== null) last = await this.#run('update', {}, scalars);
    const gradNorm = scalar(last, outputs.gradNorm);
    return {
      step: this.#step,
      loss: weight > 0 ? loss / weight : 0,
      gradNorm,
      learningRate: rate,
      skipped: this.#scaler.note(gradNorm),
    };
  }

  /** Mean loss over batches; dropout is off. Throws E_USAGE when the eval graph was not given. */
  async evaluate(batches: readonly Feeds[]): Promise<number> {
    let loss = 0;
    let weight = 0;
    for (const feeds of batches) {
      const results = await this.#run('eval', feeds, {});
      const share = scalar(results, this.manifest.outputs.weight);
      loss += scalar(results, this.manifest.outputs.loss) * share;
      weight += share;
    }
    return weight > 0 ? loss / weight : 0;
  }

  /** The trained tensors by key. */
  async parameters(): Promise<Map<string, Float32Array>> {
    const found = new Map<string, Float32Array>();
    for (const { key, input } of this.manifest.params)
      found.set(key, (await this.#carried.get(input)?.getData()) as Float32Array);
    return found;
  }

  /**
   * What was learned, in the form of the first values: `peft-compile adapter` and, where the method needs no collapse,
   * `peft-compile fold` read it.
   */
  async adapterFile(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#initial.with(await this.parameters());
  }

  async close(): Promise<void> {
    for (const tensor of this.#carried.values()) tensor.dispose();
    this.#carried.clear();
    for (const session of this.#sessions.values()) await session.release();
  }

  async #run(
    graph: GraphName,
    feeds: Feeds,
    scalars: { readonly lr?: number; readonly step?: number },
  ): Promise<InferenceSession.ReturnType> {
    const session = this.#sessions.get(graph);
    const spec = this.manifest.graphs[graph];
    if (session === undefined || spec === undefined)
      return fail('E_USAGE', {
        message: `There is no graph '${graph}'`,
        remedy: 'Give its file to StepDriver.open',
      });
    const values = this.#scalars(scalars, spec.inputs);
    const inputs: Record<string, Tensor> = {};
    for (const name of spec.inputs) inputs[name] = this.#input(name, feeds, values);
    const results = await session.run(inputs);
    const { gradNorm } = this.manifest.outputs;
    const overflowed =
      this.#scaler.dynamic && results[gradNorm] !== undefined && !Number.isFinite(scalar(results, gradNorm));
    for (const { input, output } of this.#carriedTensors()) {
      const next = results[output];
      if (next === undefined) continue;
      if (overflowed) next.dispose();
      else this.#carry(input, next);
    }
    return results;
  }

  #input(name: string, feeds: Feeds, scalars: ReadonlyMap<string, Tensor>): Tensor {
    const carried = this.#carried.get(name) ?? scalars.get(name);
    if (carried !== undefined) return carried;
    const given = feeds[name];
    if (given === undefined)
      return fail('E_INVALID_DATA', {
        message: `The batch lacks '${name}'`,
        remedy: 'manifest.batch lists what a batch holds',
      });
    return ortTensor(this.#ort.Tensor, given);
  }

  /** The scalars that a graph takes; its masks take the next seed, so that evaluating in between changes none. */
  #scalars(
    { lr = 0, step = 0 }: { readonly lr?: number; readonly step?: number },
    inputs: readonly string[],
  ): Map<string, Tensor> {
    const values = { lr, step, lossScale: this.#scaler.scale };
    const taken = this.manifest.scalars.filter(({ name }) => inputs.includes(name));
    return new Map(
      taken.map(({ name, role }) => [
        name,
        role === 'seed'
          ? new this.#ort.Tensor('int32', Int32Array.of(this.#seed++), [])
          : this.#float32(Float32Array.of(values[role]), []),
      ]),
    );
  }

  *#carriedTensors(): IterableIterator<{ readonly input: string; readonly output: string }> {
    yield* this.manifest.params;
    yield* this.manifest.optimizer.state;
    const { accumulation } = this.manifest;
    if (accumulation === null) return;
    yield* accumulation.tensors;
    yield accumulation.weight;
  }

  #carry(input: string, tensor: Tensor): void {
    const old = this.#carried.get(input);
    if (old !== undefined && old !== tensor) old.dispose();
    this.#carried.set(input, tensor);
  }

  #fill({ input, shape, init }: CarriedTensor): void {
    this.#carry(input, this.#float32(new Float32Array(countOf(shape)).fill(init), shape));
  }

  #float32(data: Float32Array, dims: readonly number[]): Tensor {
    return new this.#ort.Tensor('float32', data, dims);
  }
}

/** Carried outputs stay where the provider computes; the rest comes back. */
function sessionOptions(
  manifest: StepManifest,
  graph: GraphName,
  { session = {} }: StepDriverOptions,
): InferenceSession.SessionOptions {
  const onGpu = (session.executionProviders ?? []).some(
    (provider) => (typeof provider === 'string' ? provider : provider.name) === 'webgpu',
  );
  if (!onGpu) return session;
  const { outputs } = manifest;
  const read = new Set([
    outputs.loss,
    outputs.weight,
    outputs.gradNorm,
    ...outputs.metrics.map(({ name }) => name),
  ]);
  const locations = (manifest.graphs[graph]?.outputs ?? []).map(
    (name) => [name, read.has(name) || graph === 'eval' ? 'cpu' : 'gpu-buffer'] as const,
  );
  return { ...session, preferredOutputLocation: Object.fromEntries(locations) };
}

function scalar(results: InferenceSession.ReturnType, name: string): number {
  return Number((results[name]?.data as Float32Array | undefined)?.[0] ?? Number.NaN);
}
