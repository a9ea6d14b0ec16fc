/** Any model of the fixtures through the training API and through the step target, on one batch. */
import ort from 'onnxruntime-node';
import type { BatchInput } from '../../passes/targets/manifest.js';
import { emitOrtTraining } from '../../passes/targets/ort-training/emit.js';
import type { OrtTrainingOptions } from '../../passes/targets/ort-training/options.js';
import { numbersOf } from '../../runtime/host-tensor.js';
import { pastSymbols } from '../../runtime/past-inputs.js';
import { randomInputs } from '../../runtime/random-inputs.js';
import { randomStream } from '../../src/initializer.js';
import type { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import type { Batch } from '../targets/driver.js';
import { byStepTarget, byTrainingApi, type Course } from './agreement.js';
import { adapted, LORA } from './cases.js';

/** What a model of the fixtures needs to be trained. */
export interface Trainee {
  /** Absolute path of the `.onnx` file. */
  readonly path: string;
  /** Default: mean squared error of the first float output. */
  readonly loss?: { readonly id: string; readonly config: Readonly<Record<string, unknown>> };
  /** Inputs that training settles. */
  readonly fixed?: Readonly<Record<string, number | boolean>>;
  /** Sizes of symbols for random inputs. */
  readonly sizes?: Readonly<Record<string, number>>;
}

/** Without ONNX Runtime's own rewriting: it replaces DequantizeLinear and MatMul by a product with 8-bit activations. */
const PLAIN = { graphOptimizationLevel: 'disabled' } as const;

/** Smallest number of classes of the losses over classes that fixtures have. */
const CLASSES = 3;

/** Trains LoRA on all linears, from random factors, both ways. */
export async function courses(
  { path, loss, fixed, sizes = {} }: Trainee,
  steps: number,
  options: Partial<OrtTrainingOptions> = {},
): Promise<{ readonly theirs: Course; readonly ours: Course }> {
  const model = await adapted({ path }, { ...LORA, targeting: { targets: 'all-linear' } });
  // The web's runtime reads no data files.
  for (const value of model.graph.initializers)
    if (value.tensor !== undefined) value.tensor = held(value.tensor);
  const full: OrtTrainingOptions = {
    loss: loss?.id ?? 'mse',
    ...(loss === undefined ? {} : { lossConfig: loss.config }),
    ...(fixed === undefined ? {} : { inputs: fixed }),
    schedule: { id: 'constant', learningRate: 0.02 },
    ...options,
  };
  const batch = batchOf(model, emitOrtTraining(model, full).inputs, sizes);
  const batches = Array.from({ length: steps }, () => [batch]);
  return {
    theirs: await byTrainingApi(model, full, batches),
    ours: await byStepTarget(model, full, batches, PLAIN),
  };
}

function held({ dtype, dims, data }: Tensor): Tensor {
  return tensorOfBytes(dtype, dims, data.read(0, data.byteLength));
}

/** Random inputs of the sizes of a sequence without a past, and labels that go with them. */
function batchOf(model: Model, inputs: readonly BatchInput[], given: Trainee['sizes']): Batch {
  const starts = [...pastSymbols(model.graph)].map((symbol) => [symbol, 0] as const);
  const random = randomInputs(model, { sizes: { ...given, ...Object.fromEntries(starts) }, seed: 1 });
  const sizes = new Map<string, number>();
  for (const { name, shape } of inputs)
    for (const [axis, dim] of shape.entries()) {
      const size = random[name]?.dims[axis];
      if (typeof dim === 'string' && size !== undefined) sizes.set(dim, size);
    }
  const labels = randomStream(2, 'labels');
  return Object.fromEntries(
    inputs.map(({ name, dtype, shape, role }) => {
      const input = random[name];
      if (role !== 'label' && input !== undefined) return [name, tensor(dtype, numbersOf(input), input.dims)];
      const dims = shape.map((dim) => (typeof dim === 'number' ? dim : (sizes.get(dim ?? '') ?? 4)));
      const count = dims.reduce((product, dim) => product * dim, 1);
      const values = Float64Array.from({ length: count }, () =>
        dtype === 'int64' ? Math.floor(CLASSES * labels()) : labels(),
      );
      return [name, tensor(dtype, values, dims)];
    }),
  );
}

function tensor(dtype: string, values: ArrayLike<number>, dims: readonly number[]): ort.Tensor {
  if (dtype === 'int64') return new ort.Tensor('int64', BigInt64Array.from(Array.from(values), BigInt), dims);
  if (dtype === 'int32') return new ort.Tensor('int32', Int32Array.from(values), dims);
  if (dtype === 'bool') return new ort.Tensor('bool', Uint8Array.from(values), dims);
  if (dtype === 'float32') return new ort.Tensor('float32', Float32Array.from(values), dims);
  throw new Error(`no tensor of ${dtype}`);
}
