/** Where the committed fixtures lie, and what the exporters' side says about each (written by `fixtures/generate`). */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository root: the nearest folder upwards with a package.json, from `test/` and from `dist/test/` alike. */
export const repositoryRoot = findRoot(dirname(fileURLToPath(import.meta.url)));

export type Architecture = 'bert' | 'distilbert' | 'roberta' | 'gpt2' | 'llama';

/** One of torch's modules that owns a weight. */
export interface TorchModule {
  /** As `named_modules()` gives it: `bert.encoder.layer.0.attention.self.query`. */
  readonly path: string;
  /** Python class name: `Linear`, `Conv1D`, `Embedding`, `LayerNorm`, `LlamaRMSNorm`. */
  readonly kind: string;
  /** Shape of `weight` in torch's own layout. */
  readonly weightShape: readonly number[];
  readonly bias: boolean;
  /** `Linear` and `Conv1D` only. */
  readonly inDim?: number;
  readonly outDim?: number;
  /** `Embedding` only. */
  readonly rows?: number;
  readonly columns?: number;
  /** weight[0,0], [0,1], [1,0], [1,1], seen as [in, out] or [row, column]. Tells one weight from every other. */
  readonly corner?: readonly number[];
}

export interface FixtureValue {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly (string | number)[];
}

/** An exported model under `fixtures/models`. */
export interface ModelFixture {
  /** `<architecture>.<exporter>.<variant>`. */
  readonly name: string;
  readonly architecture: Architecture;
  readonly task: 'classification' | 'causal-lm';
  /** torch.onnx's TorchScript exporter or its dynamo exporter. */
  readonly exporter: 'ts' | 'dynamo';
  /** `static`, `dynamic`, or what is special: `unfolded`, `opset11`, `sdpa`, `external`, `fp16`, … */
  readonly variant: string;
  /** Batch and sequence are symbolic. Otherwise they are 4 and 12. */
  readonly dynamic: boolean;
  readonly opset: number;
  readonly dtype: 'float32' | 'float16' | 'bfloat16';
  readonly attention: 'eager' | 'sdpa';
  readonly externalData: boolean;
  readonly inputs: readonly FixtureValue[];
  readonly outputs: readonly FixtureValue[];
  /** How many cases of `casesPath` fit this model: `case<i>.<input>` for i below this number. */
  readonly cases: number;
  /** What torch computed is `case<i>.<logits>`. */
  readonly logits: string;
  /** Groups of parameter paths that are one tensor in torch. */
  readonly tied: readonly (readonly string[])[];
  readonly modules: readonly TorchModule[];
  /** Absolute path of the `.onnx` file. */
  readonly path: string;
  /** Absolute path of the `.safetensors` file with inputs and torch's logits. */
  readonly casesPath: string;
}

/** A LoRA training run of torch and peft under `fixtures/reference` (`fixtures/generate/peft_reference.py`). */
export interface ReferenceCase {
  /** `bert-lora`, `gpt2-lora-accumulated`, … */
  readonly name: string;
  readonly architecture: Architecture;
  readonly task: 'classification' | 'causal-lm';
  readonly method: 'lora';
  readonly config: { readonly rank: number; readonly alpha: number; readonly rslora: boolean };
  /** PEFT's `target_modules`. */
  readonly targets: readonly string[] | string;
  /** PEFT's `rank_pattern` and `alpha_pattern`. */
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly optimizer:
    | {
        readonly id: 'adamw';
        readonly betas: readonly [number, number];
        readonly eps: number;
        readonly weightDecay: number;
      }
    | { readonly id: 'sgd'; readonly momentum: number; readonly weightDecay: number };
  /** Largest global norm of the gradient. */
  readonly clip: number;
  /** Micro-batches per step; step `s` (from 0) uses batches `s * accumulation …`, averaged over all that is scored. */
  readonly accumulation: number;
  readonly schedule: {
    readonly id: 'linear';
    readonly learningRate: number;
    readonly warmupSteps: number;
    readonly totalSteps: number;
  };
  readonly steps: number;
  /** PEFT's names of the adapter's tensors. */
  readonly keys: readonly string[];
  /** By step, before the update: loss, learning rate, global gradient norm before clipping. */
  readonly losses: readonly number[];
  readonly learningRates: readonly number[];
  readonly gradientNorms: readonly number[];
  /** Losses of the same run in float64. */
  readonly losses64: readonly number[];
  /** Largest absolute difference of the logits of the merged and the unmerged model in torch. */
  readonly mergeDifference: number;
  /** What float32 alone costs torch: relative to the float64 run, by tensor norm and by loss. */
  readonly gradientError: number;
  readonly lossError: number;
  /**
   * Absolute path of the tensors: `batch<i>.<tensor>`, `init.<key>`, `gradient.<key>`, `gradient64.<key>` (step 1,
   * unclipped), `final.<key>`, and logits on batch 0: `logits.initial`, `logits.trained`, `logits.merged`.
   */
  readonly path: string;
}

/** Absolute path of something under `fixtures/`. */
export function fixturePath(...parts: string[]): string {
  return join(repositoryRoot, 'fixtures', ...parts);
}

/** All exported models, by name, optionally only those that `keep` accepts. */
export function modelFixtures(keep: (fixture: ModelFixture) => boolean = () => true): ModelFixture[] {
  const folder = fixturePath('models');
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => {
      const record = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Omit<
        ModelFixture,
        'path' | 'casesPath'
      >;
      return {
        ...record,
        path: join(folder, `${record.name}.onnx`),
        casesPath: join(folder, `${record.architecture}.safetensors`),
      };
    })
    .filter(keep);
}

/** One exported model by its name, such as `bert.dynamo.dynamic`. */
export function modelFixture(name: string): ModelFixture {
  const found = modelFixtures((fixture) => fixture.name === name)[0];
  if (found === undefined) throw new Error(`No fixture fixtures/models/${name}.json`);
  return found;
}

/** All reference runs, by name. */
export function referenceCases(keep: (reference: ReferenceCase) => boolean = () => true): ReferenceCase[] {
  const folder = fixturePath('reference');
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => {
      const record = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Omit<ReferenceCase, 'path'>;
      return { ...record, path: join(folder, `${record.name}.safetensors`) };
    })
    .filter(keep);
}

/** What was measured when the quickstart's language model was trained (`fixtures/quickstart/model.json`). */
export interface QuickstartReport {
  readonly parameters: number;
  /** Tokens per window in all perplexities; windows do not overlap, and no window sees the one before. */
  readonly window: number;
  readonly perplexity: Readonly<Record<string, number>>;
}

export function quickstartReport(): QuickstartReport {
  return JSON.parse(readFileSync(fixturePath('quickstart', 'model.json'), 'utf8')) as QuickstartReport;
}

/**
 * Absolute path of torch's gradients of the base's own parameters: `batch.<tensor>`, `loss`, `loss64`,
 * `gradient.<parameter>`, `gradient64.<parameter>`, with torch's names and layouts.
 */
export function gradientsPath(architecture: Architecture): string {
  return fixturePath('reference', `${architecture}-grads.safetensors`);
}

/**
 * Absolute path of a file of the golden collection that lies beside some checkouts, or undefined where it is absent.
 * Use it as `test.skipIf(goldenPath('models/x.onnx') === undefined)`, so that the skip shows.
 */
export function goldenPath(relative: string): string | undefined {
  const path = join(repositoryRoot, '..', 'shared', 'golden', relative);
  return existsSync(path) ? path : undefined;
}

/** A tensor as a safetensors file stores it: little-endian bytes, with the file's dtype name (`F32`, `I64`, `BF16`). */
export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Reads a safetensors fixture. Independent of the product's own reader, which is itself under test. */
export function readTensors(path: string): Map<string, StoredTensor> {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, { dtype, shape, data_offsets: range }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    // Copied, so that the bytes start at offset 0 of a buffer and any typed array can view them.
    const bytes = Uint8Array.from(file.subarray(8 + headerLength + range[0], 8 + headerLength + range[1]));
    tensors.set(name, { dtype, shape, bytes });
  }
  return tensors;
}

/** The numbers of a stored tensor (int64 must fit a double). */
export function numbersOf(tensor: StoredTensor): Float32Array | Float64Array | number[] {
  const { buffer } = tensor.bytes;
  switch (tensor.dtype) {
    case 'F32':
      return new Float32Array(buffer);
    case 'F64':
      return new Float64Array(buffer);
    case 'I64':
      return Array.from(new BigInt64Array(buffer), Number);
    case 'F16':
      return Array.from(new Uint16Array(buffer), fromHalf);
    case 'BF16':
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer);
    default:
      throw new Error(`No reading of dtype ${tensor.dtype}`);
  }
}

function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

function findRoot(from: string): string {
  if (existsSync(join(from, 'package.json'))) return from;
  const parent = dirname(from);
  if (parent === from) throw new Error('No package.json above the tests');
  return findRoot(parent);
}
