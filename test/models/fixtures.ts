/** Models that the harness checks: a description beside every `.onnx` file of `fixtures/{models,zoo,fused,decoders,quantised}`. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SiteKind } from '../../passes/sites/site.js';
import { type HostTensor, tensorOfNumbers } from '../../runtime/host-tensor.js';
import type { Tensors } from '../../runtime/session.js';
import type { ErrorCode } from '../../src/errors.js';
import type { DType } from '../../src/types.js';
import { type FixtureValue, fixturePath, readTensors, type TorchModule } from '../helpers/fixtures.js';

export const FIXTURE_FOLDERS = ['models', 'zoo', 'fused', 'decoders', 'quantised'] as const;
export type FixtureFolder = (typeof FIXTURE_FOLDERS)[number];

/** What a model cannot do, and how that is said: the test asserts an error of this code whose message holds the text. */
export interface Limit {
  readonly code: ErrorCode;
  readonly message: string;
  /** Why, for the page of models. */
  readonly reason: string;
}

export interface CheckedFixture {
  readonly name: string;
  readonly folder: FixtureFolder;
  /** Absolute path of the `.onnx` file. */
  readonly path: string;
  readonly architecture: string;
  /** `ts`, `dynamo`, or the name of another tool. */
  readonly exporter: string;
  readonly opset: number;
  readonly dtype: string;
  readonly inputs?: readonly FixtureValue[];
  /** File beside the model: `case<i>.<input>`, `train.<input>`, `train.labels`, `train.loss`, `lora.…`, `gradient.…`. */
  readonly tensors?: string;
  /** Ending of what depends on the dtype: `gradient<suffix>.<path>.A`, `train.loss<suffix>`. Default none. */
  readonly suffix?: string;
  /** How many `case<i>` fit the model. Default 0: inputs are random. */
  readonly cases?: number;
  /** Sizes of symbols for random inputs. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** The loss of the stored gradients, or to train with. Default: mean squared error of the first float output. */
  readonly loss?: { readonly id: string; readonly config: Readonly<Record<string, unknown>> };
  /** The LoRA of the stored gradients. Default: rank 2, alpha 3, all linears. */
  readonly lora?: { readonly rank: number; readonly alpha: number; readonly modules: readonly string[] };
  /** Other inputs that the step graph is emitted with (`StepOptions.inputs`). */
  readonly fixed?: Readonly<Record<string, number | boolean>>;
  /** Torch's modules with weights, the oracle for paths. Absent where the graph comes from elsewhere. */
  readonly modules?: readonly TorchModule[];
  /** Paths of tensors whose names the exporter lost, as a user would give them (`insert({paths})`). */
  readonly paths?: Readonly<Record<string, string>>;
  /** Paths of tables that the exporter may have folded into something else. */
  readonly absent?: readonly string[];
  /** Path of a weight of torch that is no site, and why. */
  readonly unfound?: Readonly<Record<string, string>>;
  /** Paths of sites that torch has no module for, and why. */
  readonly extra?: Readonly<Record<string, string>>;
  /** Exporters that cannot export the model, and why. */
  readonly unexported?: Readonly<Record<string, string>>;
  /** How many sites of a kind the model has by its architecture. */
  readonly structure?: Readonly<Partial<Record<SiteKind, number>>>;
  /** How many of them are found where that is fewer, and why. */
  readonly gaps?: Readonly<Partial<Record<SiteKind, { readonly found: number; readonly reason: string }>>>;
  readonly limits?: Readonly<Partial<Record<'insert' | 'second' | 'fold' | 'train', Limit>>>;
}

type Sidecar = Omit<CheckedFixture, 'folder' | 'path'>;

/** Descriptions of a folder in order of their names; none where the folder is not there. */
export function checkedFixtures(
  folder: FixtureFolder,
  keep: (fixture: CheckedFixture) => boolean = () => true,
): CheckedFixture[] {
  const place = fixturePath(folder);
  if (!existsSync(place)) return [];
  return readdirSync(place)
    .filter((file) => file.endsWith('.json') && existsSync(join(place, file.replace(/json$/, 'onnx'))))
    .sort()
    .map((file): CheckedFixture => {
      const sidecar = JSON.parse(readFileSync(join(place, file), 'utf8')) as Sidecar;
      const older = folder === 'models' ? ofModelFixture(sidecar) : {};
      return { ...sidecar, ...older, folder, path: join(place, `${sidecar.name}.onnx`) };
    })
    .filter(keep);
}

/** Fixtures of `fixtures/models` keep the inputs of an architecture in one file, and have gradients elsewhere. */
function ofModelFixture({ architecture, absent, modules = [] }: Sidecar): Partial<Sidecar> {
  const positions = modules
    .filter(({ path }) => /position_embeddings$|wpe$/.test(path))
    .map(({ path }) => path);
  return { tensors: `${architecture}.safetensors`, absent: absent ?? positions };
}

const DTYPES: Readonly<Record<string, DType>> = {
  F32: 'float32',
  I64: 'int64',
  F16: 'float16',
  BF16: 'bfloat16',
};

/** The tensors stored for a model by name. */
export function storedTensors({ folder, tensors }: CheckedFixture): ReadonlyMap<string, HostTensor> {
  if (tensors === undefined) return new Map();
  return new Map(
    [...readTensors(fixturePath(folder, tensors))].map(([name, { dtype, shape, bytes }]) => [
      name,
      { dtype: DTYPES[dtype] ?? 'float32', dims: shape, data: bytes },
    ]),
  );
}

/** Inputs stored under a prefix (`case0`, `train`), in the dtypes of the model. Undefined where one is missing. */
export function storedInputs(
  { inputs = [] }: CheckedFixture,
  stored: ReadonlyMap<string, HostTensor>,
  prefix: string,
): Tensors | undefined {
  const found: Record<string, HostTensor> = {};
  for (const { name, dtype } of inputs) {
    const tensor = stored.get(`${prefix}.${name}`);
    if (tensor === undefined) return undefined;
    found[name] = inDtype(tensor, dtype as DType);
  }
  return found;
}

function inDtype(tensor: HostTensor, dtype: DType): HostTensor {
  if (tensor.dtype === dtype || tensor.dtype !== 'float32') return tensor;
  const { buffer, byteOffset, byteLength } = tensor.data;
  return tensorOfNumbers(dtype, tensor.dims, new Float32Array(buffer, byteOffset, byteLength / 4));
}
