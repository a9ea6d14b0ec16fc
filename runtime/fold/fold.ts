/** Folds an adapter into its base model: plan, compute while writing, prove, verify. */

import { methodsOf } from '../../passes/adapter-record.js';
import {
  type FoldPlan,
  type PlanFoldOptions,
  type SharedPolicy,
  separateShared,
} from '../../passes/fold/plan.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { runPasses } from '../../passes/runner.js';
import { payloadOf } from '../../passes/sites/index.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { pinNames } from '../../src/names.js';
import { readModel, type WriteOptions, type WrittenFile, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { type AdapterFile, modelTensors, readAdapter } from '../adapter-file.js';
import { digestAside } from '../digest-aside.js';
import type { ReadPeftOptions } from '../peft/read.js';
import { planQuantisedFold, type QuantisedChoice, type QuantisedPlan } from '../quantize/choice.js';
import { RequantisedWeight } from '../quantize/requantised.js';
import type { SessionOptions } from '../session.js';
import { type VerifyOptions, type VerifyReport, verify } from '../verify.js';
import { type WeightedOptions, weightedAdapter } from '../weighted/combine.js';
import { writeOptionsFor } from '../write-options.js';
import { FormulaEvaluator } from './evaluator.js';
import type { Fidelity } from './fidelity.js';
import { FoldedData } from './folded-tensor.js';
import { checkBase, FOLDED_METADATA_KEY, type FoldRecord, foldHistory } from './history.js';
import { type FoldProof, proveFold } from './proof.js';
import type { ComputeDType } from './weight.js';

export interface FoldOptions {
  readonly model: string | Model;
  /** A file of ours, or a folder that Hugging Face PEFT saved. Several are made one: see `combine`. */
  readonly adapter: string | AdapterFile | readonly (string | AdapterFile)[];
  /** How several adapters are made one; default: their sum. */
  readonly combine?: Omit<WeightedOptions, 'methods'>;
  /** Which module of such a folder is which of the model, where names do not say. */
  readonly peft?: Pick<ReadPeftOptions, 'map' | 'baseWeights'>;
  /** Path of the merged model; absent for a dry run. */
  readonly out?: string;
  readonly force?: boolean;
  /** What happens to weights that others read too. Default `clone`. */
  readonly shared?: SharedPolicy;
  readonly computeDtype?: ComputeDType;
  /** Also run the unfolded and the folded model on the same inputs. */
  readonly verify?: boolean | VerifyOptions;
  /** Fold even when the adapter was trained on other weights, or was folded before. */
  readonly anyBase?: boolean;
  /** Methods of one's own that the adapter's record may name. */
  readonly methods?: readonly Method[];
  /** Fold what folds, and leave the rest of the adapter in the graph. Otherwise what does not fold is an error. */
  readonly keep?: boolean;
  /**
   * Where the weight of a module is quantised: leave the adapter beside it (`keep`, default), fold into floats that
   * replace it (`dequantise`), or store the folded floats as integers again (`requantise`).
   */
  readonly quantised?: QuantisedChoice;
  readonly paths?: ReadonlyMap<string, string>;
  /** Where weights go; default: as in the base, but into one file of their own where that lies elsewhere. */
  readonly write?: Pick<WriteOptions, 'externalData' | 'weights'>;
  /** Where formulas, and the models of a verification, are computed. Default: the CPU. */
  readonly session?: Pick<SessionOptions, 'ep' | 'cpuFallback'>;
}

export interface FoldedTensorReport {
  readonly name: string;
  readonly sites: readonly string[];
  readonly dtype: string;
  readonly dims: readonly number[];
  /** Absent in a dry run. */
  readonly fidelity?: Fidelity;
}

export interface FoldReport {
  readonly out: string | undefined;
  readonly tensors: readonly FoldedTensorReport[];
  /** Weights that several modules share and that were copied for those whose numbers stay or differ. */
  readonly copies: readonly {
    readonly of: string;
    readonly name: string;
    readonly sites: readonly string[];
  }[];
  readonly impossible: FoldPlan['impossible'];
  /** Nodes that are others than in the base, because quantised weights became floats; empty otherwise. */
  readonly changes: readonly string[];
  /** The merged model's files, itself the last; empty in a dry run. */
  readonly files: readonly WrittenFile[];
  /** Absent in a dry run. */
  readonly proof?: FoldProof;
  readonly verification?: VerifyReport;
}

/**
 * Folds and proves. The base is never written to; the merged file appears complete or not at all.
 * @throws E_USAGE for an output that is a file of the base, E_NO_MATCH for modules the model lacks, E_UNSUPPORTED when nothing folds, E_INVALID_DATA for the wrong base or
 * a second fold, E_VERIFY when the structure proof fails (numeric failures are in `verification.pass`).
 */
export async function fold(given: FoldOptions): Promise<FoldReport> {
  const base = typeof given.model === 'string' ? readModel(given.model) : given.model;
  const { out } = given;
  const options = out === undefined ? given : { ...given, write: writeOptionsFor(base, { ...given, out }) };
  // A dry run computes nothing.
  const evaluator = options.out === undefined ? undefined : new FormulaEvaluator(options.session);
  try {
    return await foldInto(base, await oneAdapter(base, options), options, evaluator);
  } finally {
    await evaluator?.close();
  }
}

/** Plans and folds, with the check of the base beside it. */
async function foldInto(
  base: Model,
  adapter: AdapterFile,
  options: FoldOptions,
  evaluator: FormulaEvaluator | undefined,
): Promise<FoldReport> {
  const history = foldHistory(base);
  // A folder of PEFT says nothing of its base's weights: there is nothing to compare a digest with.
  const digest = adapter.record.base === undefined ? undefined : digestAside(base);
  // One that fails says so when it is asked for.
  digest?.catch(() => {});
  const check = async (): Promise<void> => {
    const found = await digest;
    if (options.anyBase !== true) checkBase(base, found, adapter, history);
  };
  try {
    // The digest that the check insists on is known before the base is hashed.
    const baseDigest = options.anyBase === true ? await digest : adapter.record.base;
    return await foldChecked(base, adapter, options, evaluator, { history, baseDigest, check });
  } catch (cause) {
    // Whatever else went wrong, the wrong base is what to mend first.
    await check();
    throw cause;
  }
}

interface BaseCheck {
  readonly history: readonly FoldRecord[];
  readonly baseDigest: string | undefined;
  /** Throws for the wrong base. It runs beside all other work, and is over before the merged file gets its name. */
  readonly check: () => Promise<void>;
}

async function foldChecked(
  base: Model,
  adapter: AdapterFile,
  options: FoldOptions,
  evaluator: FormulaEvaluator | undefined,
  { history, baseDigest, check }: BaseCheck,
): Promise<FoldReport> {
  const merged = cloneModel(base).model;
  const plan = planQuantisedFold(merged, adapter.record, planOptions(options), options.quantised ?? 'keep');
  if (options.out === undefined || evaluator === undefined) {
    await check();
    return { out: undefined, ...describe(plan, { tensors: new Map(), requantised: [], files: [] }) };
  }
  checkPlan(plan, options.keep ?? false);

  runPasses(merged, [separateShared(plan)], {});
  if (plan.impossible.length > 0) {
    const kept = { ...adapter.record, sites: plan.impossible.map(({ site }) => site) };
    attachAdapter(merged, kept, await modelTensors(adapter), {
      ...planOptions(options),
      paths: plan.paths,
    });
  }
  // Named as in the file, so that the proof compares text with text.
  if (plan.impossible.length > 0 || plan.changes.length > 0) pinNames(merged);
  const { model: expected, values } = cloneModel(merged);
  const stored = plan.requantised.flatMap((one) => Object.values(one.stored));
  const changed = [...plan.tasks.map(({ target }) => target), ...stored].filter(
    (value) => value !== undefined,
  );
  const planned = new Set(changed.map((value) => values.get(value) ?? value));
  const record: FoldRecord = {
    adapter: adapter.digest,
    ...(baseDigest === undefined ? {} : { base: baseDigest }),
    method: methodsOf(adapter.record),
    version: 1,
  };
  merged.metadata.set(FOLDED_METADATA_KEY, JSON.stringify([...history, record]));
  const payloads = await writeFolded(
    merged,
    plan,
    adapter,
    evaluator,
    { ...options, out: options.out },
    check,
  );
  const proof = proveFold(expected, readModel(options.out), planned);
  if (!proof.holds)
    fail('E_VERIFY', {
      message: `The merged model differs from the base in more than numbers: ${proof.differences.join('; ')}`,
      where: options.out,
      remedy: 'Please report this; the base model is unchanged',
    });
  const verification = await verifyFold(base, adapter, options, options.out);
  return {
    out: options.out,
    ...describe(plan, payloads),
    proof,
    ...(verification === undefined ? {} : { verification }),
  };
}

/** The adapter, or all of them as one. */
async function oneAdapter(base: Model, options: FoldOptions): Promise<AdapterFile> {
  const given = [options.adapter].flat() as (string | AdapterFile)[];
  const adapters: AdapterFile[] = [];
  for (const one of given)
    adapters.push(typeof one === 'string' ? await readAdapter(one, foreign(base, options)) : one);
  const [first] = adapters;
  if (first !== undefined && adapters.length === 1 && options.combine?.weights === undefined) return first;
  return weightedAdapter(adapters, {
    ...options.combine,
    ...(options.methods === undefined ? {} : { methods: options.methods }),
  });
}

/** How a folder of PEFT is read. */
function foreign(base: Model, { methods, paths, peft }: FoldOptions): ReadPeftOptions {
  return {
    base,
    ...peft,
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  };
}

function planOptions({ computeDtype, methods, paths, shared }: FoldOptions): PlanFoldOptions {
  return {
    ...(shared === undefined ? {} : { shared }),
    ...(computeDtype === undefined ? {} : { computeDtype }),
    ...(methods === undefined ? {} : { methods }),
    ...(paths === undefined ? {} : { paths }),
  };
}

/** Puts computed payloads behind the planned tensors and streams the model to disk. */
async function writeFolded(
  merged: Model,
  plan: QuantisedPlan,
  adapter: AdapterFile,
  evaluator: FormulaEvaluator,
  options: FoldOptions & { readonly out: string },
  beforeCommit: () => Promise<void>,
): Promise<Payloads> {
  const payloads = new Map<string, FoldedData>();
  // A formula may read a tensor that another one changes.
  const before = new Map(
    plan.tasks.flatMap(({ target, inputs }) =>
      [target, ...[...inputs.values()].flatMap((input) => ('base' in input ? [input.base] : []))].map(
        (value) => [value, payloadOf(value)] as const,
      ),
    ),
  );
  for (const task of plan.tasks) {
    const { target } = task;
    const tensor =
      payloadOf(target) ??
      fail('E_INVALID_GRAPH', { message: 'A weight to fold into holds no numbers', where: target.label });
    const dtype = options.computeDtype ?? 'float32';
    const data = new FoldedData(task, tensor, adapter.tensors, evaluator, dtype, (value) =>
      before.get(value),
    );
    payloads.set(target.label, data);
    setPayload(target, { ...tensor, data });
  }
  const requantised = plan.requantised.map((one) => {
    const tensor = payloadOf(one.task.target) as Tensor;
    const dtype = options.computeDtype ?? 'float32';
    return new RequantisedWeight(one, new FoldedData(one.task, tensor, adapter.tensors, evaluator, dtype));
  });
  for (const weight of requantised)
    for (const [value, tensor] of weight.payloads()) setPayload(value, tensor);
  const { files } = await writeModel(merged, options.out, { ...options.write, beforeCommit });
  return { tensors: payloads, requantised, files };
}

/** Numbers that were computed, by what they are for. */
interface Payloads {
  readonly tensors: ReadonlyMap<string, FoldedData>;
  readonly requantised: readonly RequantisedWeight[];
  readonly files: readonly WrittenFile[];
}

/** Integers lose what no tolerance of float arithmetic covers; more than this and the model is another one. */
const REQUANTISED_TOLERANCE = 0.1;

async function verifyFold(
  base: Model,
  adapter: AdapterFile,
  options: FoldOptions,
  out: string,
): Promise<VerifyReport | undefined> {
  if (options.verify === undefined || options.verify === false) return undefined;
  const unfolded = cloneModel(base).model;
  const settings = planOptions(options);
  const choice = options.quantised ?? 'keep';
  // What was dequantised is compared as floats: the base's kernels may quantise activations, too.
  const { paths, quantised } = planQuantisedFold(
    unfolded,
    adapter.record,
    settings,
    choice === 'dequantise' ? choice : 'keep',
  );
  attachAdapter(unfolded, adapter.record, await modelTensors(adapter), { ...settings, paths });
  const lossy = choice === 'requantise' && quantised.length > 0;
  return verify(unfolded, out, {
    ...(lossy ? { tolerance: REQUANTISED_TOLERANCE } : {}),
    ...(options.session === undefined ? {} : { session: options.session }),
    ...(options.verify === true ? {} : options.verify),
  });
}

function checkPlan({ tasks, impossible, requantised, quantised }: QuantisedPlan, keep: boolean): void {
  // What stands beside quantised weights stays there by choice.
  const [first] = impossible.filter((unfolded) => unfolded.quantised !== true);
  if (tasks.length === 0 && requantised.length === 0 && quantised.length === 0)
    fail('E_UNSUPPORTED', {
      message: `Nothing of this adapter folds: ${first === undefined ? 'it names no module' : `${first.method} does not, because ${first.reason}`}`,
      remedy: 'Serve it beside its base instead: peft-compile emit <base> --target adapted --adapter <file>',
    });
  if (first !== undefined && !keep)
    fail('E_UNSUPPORTED', {
      message: `${impossible.filter((one) => one.quantised !== true).length} of the adapter's modules do not fold: ${first.method} does not, because ${first.reason}`,
      where: first.path,
      remedy:
        'Pass --keep to fold the others and leave these in the graph, or serve all of it beside the base: peft-compile emit <base> --target adapted --adapter <file>',
    });
}

/** Replaces the numbers of an initializer, or of the Constant node that makes a value. */
function setPayload(value: Value, tensor: Tensor): void {
  if (value.producer === undefined) value.tensor = tensor;
  else {
    const { attributes } = value.producer;
    const stored = attributes.get('value');
    // The tensor in the attribute may have a name of its own.
    const named = stored?.type === 'tensor' && stored.name !== undefined ? { name: stored.name } : {};
    attributes.set('value', { type: 'tensor', value: tensor, ...named });
  }
}

function describe(plan: QuantisedPlan, payloads: Payloads) {
  const tensors = plan.tasks.map(({ target, sites }): FoldedTensorReport => {
    const fidelity = payloads.tensors.get(target.label)?.fidelity;
    return {
      name: target.label,
      sites,
      dtype: payloadOf(target)?.dtype ?? 'undefined',
      dims: payloadOf(target)?.dims ?? [],
      ...(fidelity === undefined ? {} : { fidelity }),
    };
  });
  const requantised = plan.requantised.map((one): FoldedTensorReport => {
    const { codes } = one.stored;
    const { fidelity } = payloads.requantised.find(({ requantised }) => requantised === one) ?? {};
    return {
      name: codes.label,
      sites: one.task.sites,
      dtype: `${one.from.from.label} (${payloadOf(codes)?.dtype ?? 'undefined'})`,
      dims: payloadOf(codes)?.dims ?? [],
      ...(fidelity === undefined ? {} : { fidelity }),
    };
  });
  const copies = plan.copies.map(({ of, copy, sites }) => ({ of: of.label, name: copy.label, sites }));
  const { impossible, changes } = plan;
  return { tensors: [...tensors, ...requantised], copies, impossible, changes, files: payloads.files };
}
