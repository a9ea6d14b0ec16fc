/**
 * The contract between emitted training graphs and whoever drives them: which tensors go in, which come out, what they
 * mean, and which numbers the host has to supply. A driver needs this file, the graphs and an ONNX runtime, no more.
 *
 * One optimizer step without accumulation: `step` graph, fed with the batch, the parameters, the optimizer state and
 * the scalars; its outputs replace parameters and state.
 * With accumulation: `accumulation.tensors` and `accumulation.weight` start at zero, the `grad` graph is run once per
 * micro-batch and its outputs replace them, then the `update` graph reads them and writes parameters and state.
 */
import { z } from 'zod';
import { DTYPE_CODES, type DType } from '../../src/types.js';

const dtype = z.custom<DType>((value) => typeof value === 'string' && Object.hasOwn(DTYPE_CODES, value), {
  message: 'not an element type',
});
/** A number, a symbol (equal symbols are equal sizes), or null when unknown. */
const dim = z.union([z.int().min(0), z.string().min(1), z.null()]);
const shape = z.array(dim);
const staticShape = z.array(z.int().min(0));
const name = z.string().min(1);
const json: z.ZodType<unknown> = z.json();

const graphFile = z.object({
  /** File name next to the manifest. */
  file: z.string().min(1),
  /** All inputs, in order; every one is required. */
  inputs: z.array(name),
  outputs: z.array(name),
});

const batchInput = z.object({
  name,
  dtype,
  shape,
  /** `input`: an input of the base model; `label`: added by the loss. */
  role: z.enum(['input', 'label']),
  /** Value that marks padding where the tensor has one (`ignore_index` of label tensors). */
  padding: z.number().optional(),
});

const parameter = z.object({
  /** Name in adapter files. */
  key: name,
  input: name,
  output: name,
  shape: staticShape,
  /** Dtype that travels and is trained; float32 for half-precision models. */
  dtype,
  /** Dtype of the tensor in the adapted model; the graphs cast where it differs. */
  modelDtype: dtype,
  /** Learning-rate group named by the method. */
  group: z.string(),
  weightDecay: z.boolean(),
  /** Factor on the learning rate. */
  lrScale: z.number().min(0),
  /** Output of the `step` graph with the unclipped gradient, when asked for. */
  gradient: name.optional(),
});

/** Where a parameter lies in a flat tensor: elements [offset, offset + count), row-major. */
const member = z.object({ key: name, offset: z.int().min(0), count: z.int().min(0) });

/** A tensor that goes in, comes out and is carried to the next run. Starts filled with `init`. */
const carried = z.object({
  input: name,
  output: name,
  shape: staticShape,
  dtype,
  init: z.number(),
  /** The parameters it holds. */
  members: z.array(member),
});

const optimizer = z.object({
  id: z.string(),
  config: z.record(z.string(), json),
  /** `slot` is the optimizer's name of the quantity, e.g. `m`. */
  state: z.array(carried.extend({ slot: z.string() })),
});

const scalar = z.object({
  name,
  dtype,
  /**
   * `lr`: learning rate of this step. `step`: number of this optimizer step, from 1. `seed`: any integer that no other
   * forward pass of the run uses, e.g. run seed + count of forward passes; dropout masks are a function of it.
   * `lossScale`: see `lossScaling`.
   */
  role: z.enum(['lr', 'step', 'seed', 'lossScale']),
});

const metric = z.object({
  name,
  /** `sum`: add over batches. `mean`: average over batches, each weighted by the weight output. */
  reduce: z.enum(['sum', 'mean']),
  /** Divide the sum by the sum of the weights to get the rate (accuracy from correct predictions). */
  perWeight: z.boolean(),
});

export const scheduleSchema = z.object({
  id: z.string(),
  learningRate: z.number().min(0),
  warmupSteps: z.int().min(0).default(0),
  /** Steps until the schedule ends; null when the driver derives it from the data. */
  totalSteps: z.int().min(1).nullable().default(null),
});

export const stepManifestSchema = z.object({
  schemaVersion: z.literal(1),
  base: z.object({
    /** Digest of the base model, or null when the emitter was given none. */
    digest: z.string().nullable(),
  }),
  graphs: z.object({
    step: graphFile.optional(),
    grad: graphFile.optional(),
    update: graphFile.optional(),
    eval: graphFile,
  }),
  batch: z.array(batchInput),
  params: z.array(parameter),
  /** Keys of trainable parameters that the loss does not depend on: they keep their values and are in no graph's inputs. */
  untrained: z.array(name),
  optimizer,
  scalars: z.array(scalar),
  outputs: z.object({
    /** Mean loss of the batch, scalar: `step`, `grad` and `eval`. */
    loss: name,
    /** What the mean divides by (tokens, rows, elements), scalar float: `step`, `grad` and `eval`. */
    weight: name,
    /** Global 2-norm of the gradient before clipping, scalar: `step` and `update`. */
    gradNorm: name,
    /** Scalars of `step`, `grad` and `eval`. */
    metrics: z.array(metric),
    /** Outputs of the model itself, in `eval` only. */
    model: z.array(z.object({ name, dtype, shape: shape.nullable() })),
  }),
  loss: z.object({
    id: z.string(),
    config: z.record(z.string(), json),
    /** The exponential of the mean loss is a perplexity. */
    perplexity: z.boolean(),
  }),
  schedule: scheduleSchema,
  /**
   * The factor on the loss is an input, fed with `init` at first. A step whose gradient norm is not finite has overflowed:
   * its outputs are dropped, parameters and state stay, and the factor is multiplied by `backoff`; after `interval` steps
   * without an overflow it is multiplied by `growth`. A skipped step does not count in the scalar `step`. Null: fixed.
   */
  lossScaling: z
    .object({
      init: z.number().positive(),
      growth: z.number().min(1),
      backoff: z.number().positive().max(1),
      interval: z.int().min(1),
    })
    .nullable()
    .default(null),
  /** Clipping by global norm, as in `torch.nn.utils.clip_grad_norm_`; null for none. */
  clipping: z.object({ maxNorm: z.number().positive() }).nullable(),
  accumulation: z
    .object({
      /** Micro-batches per optimizer step. */
      steps: z.int().min(1),
      /** Sums of the gradients of loss × weight. */
      tensors: z.array(carried),
      /** Sum of the weights, scalar; the update divides by it, so that accumulation equals one big batch. */
      weight: carried,
    })
    .nullable(),
  /** Probability the adapters' dropout was compiled with; 0 for none. */
  dropout: z.number().min(0).max(1),
  precision: z.object({
    /** Dtype of parameters and optimizer state. */
    params: dtype,
    /** Dtype of the model's floating-point activations at the loss. */
    model: dtype,
  }),
  adapter: z.object({
    entries: z.array(z.object({ method: z.string(), config: z.record(z.string(), json) })),
    /** Module paths of the adapted sites. */
    sites: z.array(z.string()),
  }),
});

export type StepManifest = z.infer<typeof stepManifestSchema>;
/** What a driver of the `eval` graph alone needs to know. */
export type EvalManifest = Pick<StepManifest, 'graphs' | 'batch' | 'loss'> & {
  readonly outputs: Omit<StepManifest['outputs'], 'gradNorm'>;
};
export type Schedule = z.infer<typeof scheduleSchema>;
export type BatchInput = z.infer<typeof batchInput>;
export type ManifestParameter = z.infer<typeof parameter>;
export type CarriedTensor = z.infer<typeof carried>;
export type FlatMember = z.infer<typeof member>;
