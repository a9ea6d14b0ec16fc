/** Replays of the recorded runs in `fixtures/reference/methods` on exported models. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type ort from 'onnxruntime-node';
import { type AdapterRecord, allParams, readAdapterRecord } from '../../passes/adapter-record.js';
import type { InsertEntry } from '../../passes/insert/entry.js';
import type { Method, SharedDims } from '../../passes/methods/contract/method.js';
import { findSites } from '../../passes/sites/index.js';
import type { SiteKind } from '../../passes/sites/site.js';
import type { StepOptions } from '../../passes/targets/options.js';
import { emitStep } from '../../passes/targets/step.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { insert } from '../../runtime/library/insert.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import { encodeNumbers } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { type Architecture, fixturePath, type ModelFixture, modelFixtures } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { type Batch, Driver, int64 } from '../targets/driver.js';

/** A recorded run; fields as in `fixtures/reference/methods/README.md`. */
export interface Reference {
  readonly name: string;
  readonly architecture: Architecture;
  readonly task: 'classification' | 'causal-lm';
  readonly method: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly targets: readonly string[];
  readonly excluded?: readonly string[];
  readonly foldable: boolean;
  readonly batches: string;
  readonly logitRows: number;
  readonly optimizer: Readonly<Record<string, unknown>> & { readonly id: string };
  readonly clip: number;
  readonly steps: number;
  readonly sites: readonly string[];
  readonly parameters: readonly ReferenceParam[];
  readonly frozen: readonly ReferenceParam[];
  readonly indeterminate: readonly {
    readonly key: string;
    readonly start: number;
    readonly end: number;
  }[];
  readonly losses: readonly number[];
  readonly learningRates: readonly number[];
  readonly gradientNorms: readonly number[];
  readonly positionsShifted?: boolean;
  readonly logitsCoverVirtualTokens?: boolean;
}

export interface ReferenceParam {
  readonly key: string;
  /** Empty for what all sites share. */
  readonly path: string;
  readonly role: string;
  readonly shape: readonly number[];
  readonly layer?: number;
  readonly block?: 'attention' | 'feed-forward';
}

/** A recorded tensor, row-major. */
export interface Recorded {
  readonly param: ReferenceParam;
  readonly data: readonly number[];
}

/** What connects a method's recorded runs with the method. */
export interface MethodMapping {
  /** What to insert. Default: the method with its recorded settings, at the recorded sites. */
  entries?(reference: Reference): InsertEntry[];
  /**
   * Recorded tensors as ours, by our key. Gradients of several recorded tensors that one of ours stands for differ from
   * their values: `of` tells which they are.
   */
  translate(
    recorded: readonly Recorded[],
    of: 'value' | 'gradient',
    reference: Reference,
  ): Map<string, readonly number[]>;
  /** Kinds of sites that an export has to have; the others are left out. */
  needs?(reference: Reference): readonly SiteKind[];
  /** Recorded logits as ours. Default: the same. */
  logits?(recorded: readonly number[], reference: Reference): readonly number[];
  /** The model that is trained, with its record, where it is more than the base with entries inserted. */
  build?(reference: Reference, path: string): Promise<Model>;
  /** What else is fed beside the recorded batch. */
  feeds?(reference: Reference): Batch;
  /** Further options of the training graph. */
  step?(reference: Reference): Partial<StepOptions>;
}

/** Elements of a recorded tensor in the order of ours. */
export type Layout = (data: readonly number[], shape: readonly number[]) => readonly number[];

export const same: Layout = (data) => data;

export const transposed: Layout = (data, shape) => {
  const [rows, columns] = shape as [number, number];
  return data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
};

/** Translation role by role, for methods whose parameters stand at the recorded paths. */
export function byRole(
  roles: Readonly<Record<string, readonly [key: string, layout: Layout]>>,
): MethodMapping['translate'] {
  return (recorded) =>
    new Map(
      recorded.map(({ param: { path, role, shape, key: name }, data }) => {
        const mapping = roles[role];
        if (mapping === undefined) throw new Error(`${name}: no mapping of ${role}`);
        const [key, layout] = mapping;
        return [path === '' ? key : `${path}.${key}`, layout(data, shape)];
      }),
    );
}

/**
 * Translation by what a method says of PEFT's files: a wrong key or orientation there puts numbers in the wrong place, and
 * the replay differs. Names of ours are those of its parameters at a small linear.
 */
export function byPeft(
  { peft, sites, shared, config }: Method,
  settings: Readonly<Record<string, unknown>> = {},
): MethodMapping['translate'] {
  const parsed = config.parse(settings);
  const dims = { inDim: 8, outDim: 8, bias: true, path: 'm' };
  const params = {
    ...sites.linear?.params(dims, parsed),
    ...shared?.([{ kind: 'linear', ...dims } as SharedDims], parsed),
  };
  const tensors = { ...peft?.tensors.linear, ...peft?.shared };
  return byRole(
    Object.fromEntries(
      Object.entries(tensors).map(([role, { key, transposed: turned }]) => [
        key,
        [params[role]?.key ?? key, turned === true ? transposed : same],
      ]),
    ),
  );
}

/** The entry that a mapping defaults to, with settings under our names. */
export function entryOf(
  { method, sites }: Reference,
  config: Readonly<Record<string, unknown>>,
  id = method,
): InsertEntry {
  return { method: id, config, targeting: { targets: [...sites] } };
}

const FOLDER = fixturePath('reference', 'methods');

/** All recorded runs, by name. */
export function references(): Reference[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => JSON.parse(readFileSync(join(FOLDER, file), 'utf8')) as Reference);
}

/**
 * Exports of the architecture with its weights in float32, that have what the method needs. Sessions here are made from
 * bytes: no external data.
 */
export function exportsOf(reference: Reference, { needs }: MethodMapping): ModelFixture[] {
  const kinds = needs?.(reference) ?? [];
  return modelFixtures(
    ({ architecture, dtype, externalData, path }) =>
      architecture === reference.architecture &&
      dtype === 'float32' &&
      !externalData &&
      (kinds.length === 0 || hasSites(path, kinds)),
  );
}

function hasSites(path: string, kinds: readonly SiteKind[]): boolean {
  const sites = findSites(readModel(path));
  return kinds.every((kind) => sites.some((site) => site.kind === kind));
}

/** Largest errors of a replay, relative to the size of what is compared. */
export interface ReplayErrors {
  /** Logits with the recorded random parameters. */
  output: number;
  /** The same of the merged model; undefined where the method does not fold. */
  merged: number | undefined;
  /** Logits after the last step. */
  trained: number;
  loss: number;
  norm: number;
  gradient: number;
  final: number;
}

/** Inserts, evaluates, trains and folds as recorded. */
export async function replay(
  reference: Reference,
  mapping: MethodMapping,
  fixture: ModelFixture,
): Promise<ReplayErrors> {
  const { translate, step = () => ({}), logits: own = (recorded) => recorded } = mapping;
  const file = new TensorFile(reference.name);
  const batches = new TensorFile(reference.batches);
  const model = await (mapping.build?.(reference, fixture.path) ??
    inserted(reference, mapping, fixture.path));
  const record = readAdapterRecord(model);
  const values = await file.translated('init', reference.parameters, 'value', reference, translate);
  for (const [key, data] of await file.translated('frozen', reference.frozen, 'value', reference, translate))
    values.set(key, data);
  const tensors = setValues(model, record, values);

  const artifacts = emitStep(model, {
    loss: reference.task,
    ...optimizerOptions(reference),
    clip: reference.clip,
    gradients: true,
    ...step(reference),
  });
  const { manifest } = artifacts;
  const fed = mapping.feeds?.(reference) ?? {};
  const feedsOf = async (index: number, names: readonly string[]): Promise<Batch> => ({
    ...(await batches.batch(
      index,
      names.filter((name) => !(name in fed)),
    )),
    ...fed,
  });
  const batchOf = (index: number) =>
    feedsOf(
      index,
      manifest.batch.map(({ name }) => name),
    );
  const inputsOf = () =>
    feedsOf(
      0,
      model.graph.inputs.map(({ name }) => name ?? ''),
    );
  const recordedLogits = async (state: string) => own(await file.numbers(`logits.${state}`), reference);
  const errors: ReplayErrors = {
    output: await logitError(model, await inputsOf(), await recordedLogits('initial')),
    merged: undefined,
    trained: 0,
    loss: 0,
    norm: 0,
    gradient: 0,
    final: 0,
  };
  if (reference.foldable)
    errors.merged = await logitError(
      await merged(fixture, record, tensors),
      await inputsOf(),
      await recordedLogits('merged'),
    );

  const determinate = await masks(reference, translate);
  const compare = (key: string, ours: readonly number[], theirs: readonly number[] | undefined) => {
    if (theirs === undefined) throw new Error(`nothing recorded for ${key}`);
    const mask = determinate.get(key);
    const kept = (data: readonly number[]) => (mask === undefined ? data : data.map((v, i) => v * mask[i]!));
    return relative(kept(ours), kept(theirs));
  };
  const driver = await Driver.open(model, artifacts);
  try {
    for (let index = 0; index < reference.steps; index++) {
      const outputs = await driver.step(await batchOf(index), reference.learningRates[index]!);
      errors.loss = Math.max(errors.loss, off(numbers(outputs.loss)[0]!, reference.losses[index]!));
      errors.norm = Math.max(
        errors.norm,
        off(numbers(outputs.grad_norm)[0]!, reference.gradientNorms[index]!),
      );
      if (index > 0) continue;
      const theirs = await file.translated(
        'gradient',
        reference.parameters,
        'gradient',
        reference,
        translate,
      );
      for (const { key, gradient } of manifest.params)
        if (gradient !== undefined)
          errors.gradient = Math.max(
            errors.gradient,
            compare(key, numbers(outputs[gradient]), theirs.get(key)),
          );
    }
    const theirs = await file.translated('final', reference.parameters, 'value', reference, translate);
    const ours = new Map<string, readonly number[]>();
    for (const { key, input } of manifest.params) {
      ours.set(key, numbers(driver.carried.get(input)));
      errors.final = Math.max(errors.final, compare(key, ours.get(key)!, theirs.get(key)));
    }
    setValues(model, record, ours);
    errors.trained = await logitError(model, await inputsOf(), await recordedLogits('trained'));
  } finally {
    await driver.close();
  }
  return errors;
}

async function inserted(reference: Reference, { entries }: MethodMapping, path: string): Promise<Model> {
  const model = readModel(path);
  await insert(model, { entries: entries?.(reference) ?? [entryOf(reference, reference.config)] });
  return model;
}

/** Gives the parameters in a model new numbers; returns all parameters of the record by key. */
export function setValues(
  model: Model,
  record: AdapterRecord,
  values: ReadonlyMap<string, readonly number[]>,
): Map<string, Tensor> {
  const initializers = new Map([...model.graph.initializers].map((value) => [value.name, value]));
  const unknown = new Set(values.keys());
  const tensors = new Map<string, Tensor>();
  for (const { key, name, shape, dtype, trainable } of allParams(record)) {
    const value = initializers.get(name);
    if (value?.tensor === undefined) throw new Error(`no initializer ${name}`);
    const data = values.get(key);
    if (data === undefined && trainable) throw new Error(`nothing recorded for ${key}`);
    if (data !== undefined) {
      const count = shape.reduce((product, dim) => product * dim, 1);
      if (data.length !== count)
        throw new Error(`${key} [${shape.join(', ')}] got ${data.length} recorded numbers`);
      value.tensor = tensorOfBytes(dtype, shape, encodeNumbers(dtype, Float64Array.from(data)));
      unknown.delete(key);
    }
    tensors.set(key, value.tensor);
  }
  if (unknown.size > 0) throw new Error(`the model has no ${[...unknown].join(', ')}`);
  return tensors;
}

/** Per key, 1 where the recorded gradient means something and 0 elsewhere. Only keys with a range of zeros. */
async function masks(
  reference: Reference,
  translate: MethodMapping['translate'],
): Promise<ReadonlyMap<string, readonly number[]>> {
  if (reference.indeterminate.length === 0) return new Map();
  const marked = reference.parameters.map((param): Recorded => {
    const count = param.shape.reduce((product, dim) => product * dim, 1);
    const ranges = reference.indeterminate.filter(({ key }) => key === param.key);
    const inside = (i: number) => ranges.some(({ start, end }) => start <= i && i < end);
    return { param, data: Array.from({ length: count }, (_, i) => (inside(i) ? 0 : 1)) };
  });
  return new Map([...translate(marked, 'gradient', reference)].filter(([, mask]) => mask.includes(0)));
}

async function merged(
  fixture: ModelFixture,
  record: AdapterRecord,
  tensors: ReadonlyMap<string, Tensor>,
): Promise<Model> {
  const folder = mkdtempSync(join(tmpdir(), 'reference-'));
  try {
    const adapter = join(folder, 'adapter.safetensors');
    await writeAdapter(adapter, record, new Map(tensors));
    const out = join(folder, 'merged.onnx');
    await fold({ model: fixture.path, adapter, out });
    const model = readModel(out);
    // The folder goes away: what the model still has to read is read now.
    for (const value of model.graph.initializers)
      if (value.tensor !== undefined) {
        const { dtype, dims, data } = await loadTensor(value.tensor);
        value.tensor = tensorOfBytes(dtype, dims, data);
      }
    return model;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Largest difference from the recorded logits, relative to the largest of them. Only the first rows are recorded. */
async function logitError(model: Model, feeds: Batch, recorded: readonly number[]): Promise<number> {
  const results = await runModel(model, feeds);
  const ours = numbers(results.logits as ort.Tensor).slice(0, recorded.length);
  if (ours.length < recorded.length) throw new Error(`${ours.length} logits instead of ${recorded.length}`);
  const scale = Math.max(...recorded.map(Math.abs));
  return Math.max(...recorded.map((value, i) => Math.abs(value - ours[i]!))) / scale;
}

function optimizerOptions({ optimizer }: Reference): Pick<StepOptions, 'optimizer' | 'optimizerConfig'> {
  const { id, betas, ...rest } = optimizer;
  const [beta1, beta2] = (betas ?? []) as number[];
  return { optimizer: id, optimizerConfig: betas === undefined ? rest : { ...rest, beta1, beta2 } };
}

const off = (ours: number, theirs: number) => Math.abs(ours / theirs - 1);

const relative = (a: readonly number[], b: readonly number[]) => {
  const size = Math.hypot(...b);
  const difference = Math.hypot(...a.map((v, i) => v - b[i]!));
  return size === 0 ? difference : difference / size;
};

/** Tensors of a reference file by name. */
export class TensorFile {
  readonly #file;
  constructor(name: string) {
    this.#file = readSafetensors(join(FOLDER, `${name}.safetensors`));
  }

  async numbers(name: string): Promise<number[]> {
    return (await this.#load(name)).data;
  }

  async translated(
    prefix: string,
    params: readonly ReferenceParam[],
    of: 'value' | 'gradient',
    reference: Reference,
    translate: MethodMapping['translate'],
  ): Promise<Map<string, readonly number[]>> {
    const recorded = await Promise.all(
      params.map(async (param) => ({ param, data: await this.numbers(`${prefix}.${param.key}`) })),
    );
    return recorded.length === 0 ? new Map() : translate(recorded, of, reference);
  }

  /** The named inputs of a batch; those that no batch has (a mask that was folded away) are left out. */
  async batch(index: number, names: readonly string[]): Promise<Batch> {
    const entries = await Promise.all(
      names.map(async (name): Promise<[string, ort.Tensor]> => {
        const { data, dims } = await this.#load(`batch${index}.${name}`);
        return [name, int64(data, dims)];
      }),
    );
    return Object.fromEntries(entries);
  }

  async #load(name: string): Promise<{ data: number[]; dims: readonly number[] }> {
    const tensor = this.#file.tensors.get(name);
    if (tensor === undefined) throw new Error(`no tensor ${name}`);
    return { data: Array.from(numbersOf(await loadTensor(tensor)), Number), dims: tensor.dims };
  }
}
