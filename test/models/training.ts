/** The step graph of a LoRA: gradients against torch's or against finite differences, and whether training learns. */

import type { StepManifest } from '../../passes/targets/manifest.js';
import { emitStep } from '../../passes/targets/step.js';
import {
  filledTensor,
  type HostTensor,
  numbersOf,
  scalarTensor,
  tensorOfNumbers,
} from '../../runtime/host-tensor.js';
import { openModel } from '../../runtime/model-session.js';
import type { Session, SessionHost, Tensors } from '../../runtime/session.js';
import { fillNormal, randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import type { CheckedFixture } from './fixtures.js';

export interface TrainingCheck {
  /** Where the expected gradients come from. */
  readonly against: 'torch' | 'finite differences';
  /** Largest error of a gradient over its scale, and of the loss. */
  readonly gradient: number;
  readonly loss: number;
  /** Loss before and after a few steps on one batch. */
  readonly first: number;
  readonly last: number;
  /** Parameters in the graph, and trainable ones that the loss does not depend on. */
  readonly params: number;
  readonly untrained: number;
}

const LEARNING_RATE = 2e-2;
const STEPS = 6;

interface Runner {
  readonly manifest: StepManifest;
  /** Runs the step graph at given parameters; the state is that of `carried`. */
  run(parameters: Tensors, state: Tensors, step: number): Promise<Tensors>;
}

export async function checkTraining(
  host: SessionHost,
  fixture: CheckedFixture,
  adapted: Model,
  inputs: Tensors,
  stored: ReadonlyMap<string, HostTensor>,
  outputDims: ReadonlyMap<string, readonly number[]>,
): Promise<TrainingCheck> {
  const loss = fixture.loss ?? { id: 'mse', config: {} };
  const { step, manifest } = emitStep(adapted, {
    loss: loss.id,
    lossConfig: loss.config,
    gradients: true,
    ...(fixture.fixed === undefined ? {} : { inputs: fixture.fixed as never }),
  });
  if (step === undefined) throw new Error('no step graph');
  const { session, dispose } = await openModel(host, step);
  try {
    const labels = labelsOf(manifest, loss.config.output as string | undefined, stored, outputDims);
    const runner: Runner = { manifest, run: runnerOf(session, manifest, { ...inputs, ...labels }) };
    const parameters = parametersOf(manifest, stored);
    const zero = stateOf(manifest);
    const first = await runner.run(parameters, zero, 1);
    const gradients = gradientsOf(manifest, first);
    const expected = torchGradients(manifest, stored, fixture.suffix ?? '');
    const lossOf = (outputs: Tensors) => numbersOf(outputs[manifest.outputs.loss]!)[0] ?? Number.NaN;
    const expectedLoss = stored.get(`train.loss${fixture.suffix ?? ''}`);
    const gradient =
      expected === undefined
        ? await finiteDifference(runner, parameters, gradients)
        : gradientError(gradients, expected);
    const learned = await train(runner, parameters, zero);
    return {
      against: expected === undefined ? 'finite differences' : 'torch',
      gradient,
      loss: expectedLoss === undefined ? 0 : Math.abs(lossOf(first) / (numbersOf(expectedLoss)[0] ?? 0) - 1),
      first: lossOf(first),
      last: lossOf(learned),
      params: manifest.params.length,
      untrained: manifest.untrained.length,
    };
  } finally {
    await dispose();
  }
}

function runnerOf(session: Session, manifest: StepManifest, batch: Tensors): Runner['run'] {
  const { inputs = [] } = manifest.graphs.step ?? {};
  return (parameters, state, step) => {
    const scalars = Object.fromEntries(
      manifest.scalars.map(({ name, role }) => [
        name,
        role === 'seed'
          ? scalarTensor('int32', 0)
          : scalarTensor('float32', role === 'lr' ? LEARNING_RATE : step),
      ]),
    );
    const all: Tensors = { ...batch, ...parameters, ...state, ...scalars };
    return session.run(Object.fromEntries(inputs.map((name) => [name, all[name] as HostTensor])));
  };
}

function labelsOf(
  { batch }: StepManifest,
  output: string | undefined,
  stored: ReadonlyMap<string, HostTensor>,
  outputDims: ReadonlyMap<string, readonly number[]>,
): Tensors {
  const labels: Record<string, HostTensor> = {};
  const dims = outputDims.get(output ?? 'logits') ?? [...outputDims.values()][0] ?? [];
  for (const { name, dtype, shape, role } of batch) {
    if (role !== 'label') continue;
    const known = stored.get('train.labels');
    if (known !== undefined) labels[name] = known;
    else {
      const sizes = shape.map((size, axis) => (typeof size === 'number' ? size : (dims[axis] ?? 1)));
      labels[name] = dtype === 'int64' ? classes(sizes, dims.at(-1) ?? 2) : noise(sizes, 'labels');
    }
  }
  return labels;
}

function classes(dims: readonly number[], count: number): HostTensor {
  const random = randomStream(3, 'labels');
  const size = dims.reduce((product, dim) => product * dim, 1);
  return tensorOfNumbers(
    'int64',
    dims,
    Array.from({ length: size }, () => Math.floor(random() * count)),
  );
}

function noise(dims: readonly number[], key: string): HostTensor {
  const values = new Float64Array(dims.reduce((product, dim) => product * dim, 1));
  fillNormal(values, randomStream(3, key));
  return tensorOfNumbers('float32', dims, values);
}

/** Torch's factors where they are stored; otherwise noise, so that no gradient is zero because a factor is. */
function parametersOf({ params }: StepManifest, stored: ReadonlyMap<string, HostTensor>): Tensors {
  return Object.fromEntries(
    params.map(({ key, input, shape }) => {
      const known = stored.get(`lora.${torchName(key)}`);
      if (known !== undefined) return [input, known];
      const tensor = noise(shape, key);
      return [
        input,
        tensorOfNumbers(
          'float32',
          shape,
          Array.from(numbersOf(tensor), (v) => 0.3 * v),
        ),
      ];
    }),
  );
}

/** `layers.0.q_proj.lora_A` → `layers.0.q_proj.A`. */
const torchName = (key: string): string => key.replace(/\.lora_([AB])$/, '.$1');

function stateOf({ optimizer }: StepManifest): Tensors {
  return Object.fromEntries(
    optimizer.state.map(({ input, dtype, shape, init }) => [input, filledTensor(dtype, shape, init)]),
  );
}

type Gradients = ReadonlyMap<string, ArrayLike<number>>;

/** Gradients by key. */
function gradientsOf({ params }: StepManifest, outputs: Tensors): Gradients {
  return new Map(params.map(({ key, gradient }) => [key, numbersOf(outputs[gradient ?? '']!)]));
}

function torchGradients(
  { params }: StepManifest,
  stored: ReadonlyMap<string, HostTensor>,
  suffix: string,
): Gradients | undefined {
  const found = new Map<string, ArrayLike<number>>();
  for (const { key } of params) {
    const tensor = stored.get(`gradient${suffix}.${torchName(key)}`);
    if (tensor === undefined) return undefined;
    found.set(key, numbersOf(tensor));
  }
  return found;
}

const largest = (values: ArrayLike<number>): number => Math.max(...Array.from(values, Math.abs));

/** Largest error over the scale of its tensor; tensors of nearly no gradient are measured against the others' scale. */
function gradientError(ours: Gradients, theirs: Gradients): number {
  const scale = Math.max(...[...theirs.values()].map(largest));
  let error = 0;
  for (const [key, expected] of theirs) {
    const got = ours.get(key)!;
    if (got.length !== expected.length) throw new Error(`${key} has ${got.length} elements`);
    const gap = Math.max(...Array.from(expected, (value, i) => Math.abs(value - (got[i] ?? Number.NaN))));
    error = Math.max(error, gap / Math.max(largest(expected), scale / 100));
  }
  return error;
}

/** Widths of the differences: the first is right for smooth models, the others where the loss bends more. */
const WIDTHS = [2e-2, 5e-3, 1.25e-3];
/** An error that needs no further width. */
const ENOUGH = 5e-4;

/**
 * Relative error of the gradient along itself: (f(p + hd) − f(p − hd)) / 2h = |g| for d = g/|g|, with the h² term removed
 * by a second width (Richardson). The best of several h: a wrong gradient fits none.
 */
async function finiteDifference(
  { manifest, run }: Runner,
  parameters: Tensors,
  gradients: Gradients,
): Promise<number> {
  const norm = Math.hypot(...[...gradients.values()].map((g) => Math.hypot(...Array.from(g))));
  const state = stateOf(manifest);
  const along = async (h: number): Promise<number> => {
    const moved = Object.fromEntries(
      manifest.params.map(({ key, input, shape }) => {
        const g = gradients.get(key)!;
        const values = Array.from(numbersOf(parameters[input]!), (v, i) => v + (h * (g[i] ?? 0)) / norm);
        return [input, tensorOfNumbers('float32', shape, values)];
      }),
    );
    const outputs = await run(moved, state, 1);
    return numbersOf(outputs[manifest.outputs.loss]!)[0] ?? Number.NaN;
  };
  const slope = async (h: number): Promise<number> => ((await along(h)) - (await along(-h))) / (2 * h);
  let best = Number.POSITIVE_INFINITY;
  for (const h of WIDTHS) {
    const derivative = (4 * (await slope(h)) - (await slope(2 * h))) / 3;
    best = Math.min(best, Math.abs(derivative - norm) / norm);
    if (best < ENOUGH) break;
  }
  return best;
}

/** Outputs of the last of a few steps on one batch. */
async function train({ manifest, run }: Runner, parameters: Tensors, zero: Tensors): Promise<Tensors> {
  let current = parameters;
  let state = zero;
  let outputs: Tensors = {};
  for (let step = 1; step <= STEPS; step++) {
    outputs = await run(current, state, step);
    const next = (carried: readonly { input: string; output: string }[]): Tensors =>
      Object.fromEntries(carried.map(({ input, output }) => [input, outputs[output] as HostTensor]));
    current = next(manifest.params);
    state = next(manifest.optimizer.state);
  }
  return outputs;
}
