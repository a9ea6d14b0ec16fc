/**
 * Examples to batches: checks every tensor against the inputs that a step graph declares, derives the standard ones
 * that data may leave out, pads on the right and stacks.
 */
import { fail } from '../../src/errors.js';
import { countOf, type DType, type Shape } from '../../src/types.js';
import { type HostTensor, tensorOfNumbers } from '../host-tensor.js';
import type { Dataset, Example, ExampleTensor } from './dataset.js';
import { standardInput, TOKEN_INPUTS } from './standard-inputs.js';

/** An input as the manifest of a step graph declares it. */
export interface BatchInputSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly role: 'input' | 'label';
  /** Value of padded places in label tensors. */
  readonly padding?: number | undefined;
}

export interface CollateOptions {
  /** Token id of padding. Default 0; attention masks and ignored labels make it harmless. */
  readonly padId?: number;
  /** Pad symbolic sequence axes to this length instead of to the longest example of the batch. */
  readonly length?: number;
  /** Padding values of inputs that have no standard one. */
  readonly padding?: Readonly<Record<string, number>>;
}

export interface Batch {
  readonly feeds: Record<string, HostTensor>;
  readonly examples: number;
  /** Unpadded tokens; examples where the model reads no tokens. */
  readonly tokens: number;
  /** Where the examples came from. */
  readonly where: readonly string[];
}

/** How one input is filled. */
interface Plan {
  readonly spec: BatchInputSpec;
  /** Axes of one example. */
  readonly axes: Shape;
  /** `batch`: a row per example; `one`: a single row with a batch axis of 1; `none`: no batch axis. */
  readonly rows: 'batch' | 'one' | 'none';
  readonly padding: number | undefined;
  readonly derive: ((tokens: ExampleTensor) => ExampleTensor) | undefined;
}

export class Collator {
  readonly #plans: readonly Plan[];
  readonly #tokens: string | undefined;
  readonly #options: CollateOptions;
  /** Size of the batch axis when the graph fixes it. */
  readonly batchSize: number | undefined;
  /** Size of the token axis when the graph fixes it. */
  readonly sequenceLength: number | undefined;

  constructor(specs: readonly BatchInputSpec[], options: CollateOptions = {}) {
    const reference = specs.find((spec) => TOKEN_INPUTS.includes(spec.name)) ?? specs[0];
    const batchDim = reference?.shape[0];
    this.#options = options;
    this.#tokens = TOKEN_INPUTS.find((name) => specs.some((spec) => spec.name === name));
    this.batchSize = typeof batchDim === 'number' ? batchDim : undefined;
    const last = this.#tokens === undefined ? undefined : reference?.shape[1];
    this.sequenceLength = typeof last === 'number' ? last : undefined;
    this.#plans = specs.map((spec) => planOf(spec, batchDim, options));
  }

  /** Checks one example against the declared inputs. @throws E_INVALID_DATA naming the place, the tensor, both shapes. */
  check(example: Example): void {
    for (const plan of this.#plans) checkIndices(plan.spec, this.#tensor(plan, example), example.where);
    if (this.#tokens !== undefined && this.tokensOf(example) === 0)
      fail('E_INVALID_DATA', {
        message: `Tensor '${this.#tokens}' has no tokens`,
        where: example.where,
        remedy: 'Remove the example.',
      });
    this.#checkLengths(example);
    const known = new Set(this.#plans.map((plan) => plan.spec.name));
    for (const name of example.tensors.keys())
      if (!known.has(name) && standardInput(name) === undefined)
        fail('E_INVALID_DATA', {
          message: `The model has no input '${name}'`,
          where: example.where,
          remedy: `It takes ${[...known].join(', ')}; rename or remove the tensor.`,
        });
  }

  /** Whether any label of the example counts; the ignored value is the padding of labels. */
  hasLabels(example: Example): boolean {
    const labels = this.#plans.filter(({ spec }) => spec.role === 'label');
    return (
      labels.length === 0 ||
      labels.some(({ spec }) => {
        const values = example.tensors.get(spec.name)?.values ?? [];
        return spec.padding === undefined || Array.from(values).some((value) => value !== spec.padding);
      })
    );
  }

  /** Number of unpadded tokens of an example. */
  tokensOf(example: Example): number {
    const tokens = this.#tokens === undefined ? undefined : example.tensors.get(this.#tokens);
    return tokens?.values.length ?? 1;
  }

  /**
   * Stacks examples. When the graph fixes a larger batch, the missing rows repeat the first example with ignored
   * labels; a graph whose labels have no ignored value refuses incomplete batches.
   */
  batch(examples: readonly Example[]): Batch {
    const rows = this.batchSize ?? examples.length;
    if (examples.length === 0 || examples.length > rows)
      fail('E_USAGE', {
        message: `A batch of ${examples.length} examples was asked for, the graph takes ${rows}`,
        remedy: `Set the batch size to ${rows}.`,
      });
    const sizes = this.#symbolSizes(examples);
    const feeds: Record<string, HostTensor> = {};
    for (const plan of this.#plans) feeds[plan.spec.name] = this.#stack(plan, examples, rows, sizes);
    return {
      feeds,
      examples: examples.length,
      tokens: examples.reduce((sum, example) => sum + this.tokensOf(example), 0),
      where: examples.map((example) => example.where),
    };
  }

  /** True when a batch smaller than the graph's fixed size can be filled up with ignored rows. */
  get canFill(): boolean {
    return this.#plans.every(({ spec }) => spec.role !== 'label' || spec.padding !== undefined);
  }

  #tensor(plan: Plan, example: Example): ExampleTensor {
    const { spec, axes } = plan;
    const given = example.tensors.get(spec.name);
    const tensor = given ?? this.#derived(plan, example);
    const dims = tensor.dims;
    const fits =
      dims.length === axes.length &&
      axes.every(
        (axis, i) =>
          typeof axis !== 'number' ||
          dims[i] === axis ||
          (plan.padding !== undefined && (dims[i] ?? 0) < axis),
      );
    if (!fits)
      fail('E_INVALID_DATA', {
        message: `Tensor '${spec.name}' has shape [${dims.join(', ')}] in the example, the model takes [${axes.map((a) => a ?? '?').join(', ')}] per example`,
        where: example.where,
        remedy: 'Correct the data, or emit the graph with other shapes.',
      });
    if (!FLOATS.has(spec.dtype))
      for (let i = 0; i < tensor.values.length; i++)
        if (!Number.isInteger(tensor.values[i]))
          fail('E_INVALID_DATA', {
            message: `Tensor '${spec.name}' holds ${tensor.values[i]} at element ${i}; the model takes ${spec.dtype}`,
            where: example.where,
          });
    return tensor;
  }

  /** Inputs of one example that share an axis have one length there: padding is for examples, not within one. */
  #checkLengths({ tensors, where }: Example): void {
    const seen = new Map<string | number, { readonly name: string; readonly size: number }>();
    for (const { spec, axes, rows, padding } of this.#plans) {
      const dims = tensors.get(spec.name)?.dims;
      if (dims === undefined || rows !== 'batch') continue;
      axes.forEach((axis, i) => {
        // A fixed size may be two axes' by chance; one-dimensional inputs that are padded up to that of the tokens share it.
        const shared =
          typeof axis === 'string' ||
          (axis !== null && axis === this.sequenceLength && axes.length === 1 && padding !== undefined);
        if (!shared) return;
        const size = dims[i] ?? 0;
        const first = seen.get(axis);
        if (first === undefined) seen.set(axis, { name: spec.name, size });
        else if (first.size !== size)
          fail('E_INVALID_DATA', {
            message: `Tensor '${spec.name}' has length ${size}, '${first.name}' has ${first.size}, and the model takes one length for both`,
            where,
            remedy: 'Give them one length; shorter examples are padded, all inputs alike.',
          });
      });
    }
  }

  #derived(plan: Plan, example: Example): ExampleTensor {
    const tokens = this.#tokens === undefined ? undefined : example.tensors.get(this.#tokens);
    if (plan.derive !== undefined && tokens !== undefined) return plan.derive(tokens);
    return fail('E_INVALID_DATA', {
      message: `The example has no tensor '${plan.spec.name}'`,
      where: example.where,
      remedy: `The model takes ${this.#plans.map(({ spec }) => spec.name).join(', ')}; the example has ${[...example.tensors.keys()].join(', ') || 'nothing'}.${plan.spec.role === 'label' ? '' : ` An input that is the same for all can be fixed: --set ${plan.spec.name}=0.`}`,
    });
  }

  /** Sizes of symbolic axes in this batch; inputs that share a symbol share the size. */
  #symbolSizes(examples: readonly Example[]): Map<string, number> {
    const sizes = new Map<string, number>();
    for (const plan of this.#plans)
      for (const example of examples) {
        const { dims } = this.#tensor(plan, example);
        plan.axes.forEach((axis, i) => {
          if (typeof axis === 'string') sizes.set(axis, Math.max(sizes.get(axis) ?? 0, dims[i] ?? 0));
        });
      }
    const { length } = this.#options;
    const tokens = this.#plans.find((plan) => plan.spec.name === this.#tokens);
    const axis = tokens?.axes[0];
    if (length !== undefined && typeof axis === 'string') {
      if ((sizes.get(axis) ?? 0) > length)
        fail('E_INVALID_DATA', {
          message: `An example has ${sizes.get(axis)} tokens, the fixed length is ${length}`,
          ...(examples[0] === undefined ? {} : { where: examples[0].where }),
          remedy: 'Raise the length or cut the examples.',
        });
      sizes.set(axis, length);
    }
    return sizes;
  }

  #stack(
    plan: Plan,
    examples: readonly Example[],
    rows: number,
    sizes: ReadonlyMap<string, number>,
  ): HostTensor {
    const { spec } = plan;
    const given = examples.map((example) => this.#tensor(plan, example));
    const dims = plan.axes.map((axis, i) =>
      typeof axis === 'number'
        ? axis
        : axis === null
          ? Math.max(...given.map((tensor) => tensor.dims[i] ?? 0))
          : (sizes.get(axis) ?? 0),
    );
    const count = countOf(dims);
    // What all rows share is derived for the padded length.
    const tensors =
      plan.rows === 'batch' || plan.derive === undefined || examples.some((e) => e.tensors.has(spec.name))
        ? given
        : [plan.derive({ dims, values: new Int32Array(count) })];
    const height = plan.rows === 'batch' ? rows : 1;
    const values = new Float64Array(height * count);
    for (let row = 0; row < height; row++) {
      // Rows past the examples repeat the first one, with labels that count for nothing.
      const filler = row >= examples.length;
      const source = filler ? 0 : row;
      const tensor = tensors[source];
      const target = values.subarray(row * count, (row + 1) * count);
      if (tensor === undefined) continue;
      if (filler && spec.role === 'label') target.fill(spec.padding ?? 0);
      else place(tensor, dims, target, plan, examples[source]?.where ?? '');
    }
    const shape = plan.rows === 'none' ? dims : [height, ...dims];
    return tensorOfNumbers(spec.dtype, shape, values);
  }
}

const FLOATS: ReadonlySet<DType> = new Set(['float32', 'float16', 'bfloat16', 'float64']);

function planOf(
  spec: BatchInputSpec,
  batchDim: number | string | null | undefined,
  options: CollateOptions,
): Plan {
  const standard = standardInput(spec.name);
  const padding =
    spec.padding ??
    options.padding?.[spec.name] ??
    (standard?.padding === 'pad-token' ? (options.padId ?? 0) : standard?.padding);
  const first = spec.shape[0];
  let rows: Plan['rows'] = 'batch';
  if (spec.shape.length > 0 && first !== batchDim && first !== null && standard?.derive !== undefined)
    if (spec.shape.length === 1) rows = 'none';
    else if (first === 1) rows = 'one';
  const axes = rows === 'none' ? spec.shape : spec.shape.slice(1);
  return { spec, axes, rows, padding, derive: standard?.derive };
}

/**
 * Integers of standard inputs and of labels with an ignored value are indices and masks; ONNX would take a negative one
 * from the end of the axis without a word.
 */
function checkIndices(spec: BatchInputSpec, { values }: ExampleTensor, where: string): void {
  const ignored = spec.role === 'label' ? spec.padding : undefined;
  if (FLOATS.has(spec.dtype) || (ignored === undefined && standardInput(spec.name) === undefined)) return;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (value < 0 && value !== ignored)
      fail('E_INVALID_DATA', {
        message: `Tensor '${spec.name}' holds ${value} at element ${i}`,
        where,
        remedy: `Use values from 0${ignored === undefined ? '' : `, and ${ignored} for what does not count`}.`,
      });
  }
}

/** Copies a tensor into the leading corner of a larger one and pads the rest. */
function place(
  tensor: ExampleTensor,
  dims: readonly number[],
  target: Float64Array,
  plan: Plan,
  where: string,
): void {
  const { values } = tensor;
  if (tensor.dims.every((dim, i) => dim === dims[i])) {
    target.set(values);
    return;
  }
  if (plan.padding === undefined)
    fail('E_INVALID_DATA', {
      message: `Tensor '${plan.spec.name}' has shape [${tensor.dims.join(', ')}], others in its batch make it [${dims.join(', ')}], and there is no padding value for it`,
      where,
      remedy: 'Give all examples one shape, use batch size 1, or set a padding value.',
    });
  target.fill(plan.padding);
  const width = tensor.dims.at(-1) ?? 1;
  for (let start = 0; start < values.length; start += width) {
    // Offset of this row in the padded tensor, from its index in the small one.
    let rest = start / width;
    let offset = 0;
    let stride = dims.at(-1) ?? 1;
    for (let axis = dims.length - 2; axis >= 0; axis--) {
      const dim = tensor.dims[axis] ?? 1;
      offset += (rest % dim) * stride;
      rest = Math.floor(rest / dim);
      stride *= dims[axis] ?? 1;
    }
    for (let i = 0; i < width; i++) target[offset + i] = values[start + i] ?? 0;
  }
}

/** Checks a whole data set before training starts. */
export function checkDataset(dataset: Dataset, collator: Collator): void {
  let labeled = false;
  for (let i = 0; i < dataset.length; i++) {
    const example = dataset.example(i);
    collator.check(example);
    labeled ||= collator.hasLabels(example);
  }
  if (!labeled)
    fail('E_INVALID_DATA', {
      message: 'No example has a label that counts: there is nothing to learn or to measure',
      where: dataset.source,
      remedy: 'Check the labels; a completion that is cut off by the length leaves none.',
    });
}
