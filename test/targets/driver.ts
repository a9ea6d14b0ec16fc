/** The smallest host that can drive emitted graphs: everything it knows comes from the manifest. */
import ort from 'onnxruntime-node';
import type { CarriedTensor, StepManifest } from '../../passes/targets/manifest.js';
import type { StepArtifacts } from '../../passes/targets/step.js';
import { decodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { sessionOf } from '../helpers/run.js';

export type Batch = Readonly<Record<string, ort.Tensor>>;
export type Outputs = Readonly<Record<string, ort.Tensor>>;

export const float32 = (data: readonly number[], dims: readonly number[] = [data.length]) =>
  new ort.Tensor('float32', Float32Array.from(data), dims);
export const int64 = (data: readonly number[], dims: readonly number[] = [data.length]) =>
  new ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims);

function filled({ dtype, shape, init }: CarriedTensor): ort.Tensor {
  const count = shape.reduce((n, d) => n * d, 1);
  return dtype === 'float64'
    ? new ort.Tensor('float64', new Float64Array(count).fill(init), shape)
    : new ort.Tensor('float32', new Float32Array(count).fill(init), shape);
}

/** Parameters, state and sums between runs, by input name. */
export class Driver {
  readonly manifest: StepManifest;
  readonly carried = new Map<string, ort.Tensor>();
  readonly #sessions: Readonly<Record<string, ort.InferenceSession>>;
  #step = 0;
  #seed = 0;

  private constructor(manifest: StepManifest, sessions: Record<string, ort.InferenceSession>) {
    this.manifest = manifest;
    this.#sessions = sessions;
  }

  static async open(
    adapted: Model,
    { manifest, ...models }: StepArtifacts,
    options: ort.InferenceSession.SessionOptions = {},
  ): Promise<Driver> {
    const sessions: Record<string, ort.InferenceSession> = {};
    for (const [name, model] of Object.entries(models))
      sessions[name] = await sessionOf(model as Model, options);
    const driver = new Driver(manifest, sessions);
    for (const param of manifest.params) {
      const tensor = [...adapted.graph.initializers].find(({ name }) => name === param.input)?.tensor;
      if (tensor === undefined) throw new Error(`no initializer ${param.input}`);
      driver.carried.set(param.input, float32(decodeNumbers(tensor) as number[], param.shape));
    }
    for (const state of manifest.optimizer.state) driver.carried.set(state.input, filled(state));
    driver.#reset();
    return driver;
  }

  #reset(): void {
    const { accumulation } = this.manifest;
    for (const sum of accumulation === null ? [] : [...accumulation.tensors, accumulation.weight])
      this.carried.set(sum.input, filled(sum));
  }

  /** Runs one graph and keeps what it carries over. */
  async run(graph: 'step' | 'grad' | 'update' | 'eval', batch: Batch, lr = 0): Promise<Outputs> {
    const session = this.#sessions[graph];
    const spec = this.manifest.graphs[graph];
    if (session === undefined || spec === undefined) throw new Error(`no graph ${graph}`);
    const scalars = new Map(
      this.manifest.scalars.map(({ name, role }) => [
        name,
        role === 'seed'
          ? new ort.Tensor('int32', Int32Array.of(this.#seed++), [])
          : float32([{ lr, step: this.#step, lossScale: this.manifest.lossScaling?.init ?? 1 }[role]], []),
      ]),
    );
    const feeds: Record<string, ort.Tensor> = {};
    for (const name of spec.inputs) {
      const tensor = batch[name] ?? this.carried.get(name) ?? scalars.get(name);
      if (tensor === undefined) throw new Error(`nothing to feed for ${name}`);
      feeds[name] = tensor;
    }
    const outputs = (await session.run(feeds)) as Outputs;
    const { accumulation } = this.manifest;
    for (const { input, output } of [
      ...this.manifest.params,
      ...this.manifest.optimizer.state,
      ...(accumulation === null ? [] : [...accumulation.tensors, accumulation.weight]),
    ]) {
      const next = outputs[output];
      if (next !== undefined) this.carried.set(input, next);
    }
    return outputs;
  }

  /**
   * One optimizer step over one batch, or over micro-batches where the target accumulates. `onForward` sees the outputs
   * of every run that has a loss.
   */
  async step(
    batches: Batch | readonly Batch[],
    lr: number,
    seed = this.#seed,
    onForward: (outputs: Outputs) => void = () => {},
  ): Promise<Outputs> {
    this.#step++;
    this.#seed = seed;
    const list = Array.isArray(batches) ? (batches as readonly Batch[]) : [batches as Batch];
    if (this.manifest.accumulation === null) {
      const outputs = await this.run('step', list[0]!, lr);
      onForward(outputs);
      return outputs;
    }
    for (const batch of list) onForward(await this.run('grad', batch));
    const outputs = await this.run('update', {}, lr);
    this.#reset();
    return outputs;
  }

  async close(): Promise<void> {
    for (const session of Object.values(this.#sessions)) await session.release();
  }
}
