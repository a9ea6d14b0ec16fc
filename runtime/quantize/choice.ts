/**
 * What a fold does where weights are quantised. `keep`: the adapter stays beside them in the graph. `dequantise`: the
 * product becomes one with a float matrix, which is folded into. `requantise`: the folded floats are stored as integers
 * again, so that the graph is the base's.
 */

import type { AdapterRecord } from '../../passes/adapter-record.js';
import {
  type FoldPlan,
  type FoldTask,
  type PlanFoldOptions,
  planFold,
  type SharedPolicy,
} from '../../passes/fold/plan.js';
import { type DequantizedWeight, dequantizeSites, wholePath } from '../../passes/quantize/dequantize.js';
import type { QuantizedMatrix } from '../../passes/quantize/matrix.js';
import type { WeightSite } from '../../passes/sites/site.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { keepsZeros } from './codec.js';
import { dequantizer } from './dequantized.js';

export const QUANTISED_CHOICES = ['keep', 'dequantise', 'requantise'] as const;
export type QuantisedChoice = (typeof QUANTISED_CHOICES)[number];

/** Floats to be folded and stored as integers again. */
export interface Requantised {
  /** Its target is a float tensor of another model; `stored` are the tensors that change. */
  readonly task: FoldTask;
  readonly from: DequantizedWeight;
  readonly stored: { readonly codes: Value; readonly scales: Value; readonly zeroPoints: Value | undefined };
}

export interface QuantisedPlan extends FoldPlan {
  readonly requantised: readonly Requantised[];
  /** What is another node than in the base, in words. */
  readonly changes: readonly string[];
  /** Module paths of weights that have names of their own now. */
  readonly paths: ReadonlyMap<string, string>;
}

/**
 * Plans a fold into `model`, which `dequantise` changes in place.
 * @throws E_UNSUPPORTED naming the module where integers cannot be read, or are shared with others.
 */
export function planQuantisedFold(
  model: Model,
  record: AdapterRecord,
  options: PlanFoldOptions,
  choice: QuantisedChoice,
): QuantisedPlan {
  const plan = planFold(model, record, options);
  const paths = new Map(options.paths);
  const plain: QuantisedPlan = { ...plan, requantised: [], changes: [], paths };
  return plan.quantised.length === 0 ? plain : CHOICES[choice](model, record, { options, plan: plain });
}

interface Planned {
  readonly options: PlanFoldOptions;
  readonly plan: QuantisedPlan;
}

const CHOICES: Readonly<
  Record<QuantisedChoice, (model: Model, record: AdapterRecord, planned: Planned) => QuantisedPlan>
> = {
  keep: (_model, _record, { plan }) => plan,

  dequantise(model, record, { options, plan }) {
    const made = dequantizeSites(model, plan.quantised as readonly WeightSite[], dequantizer());
    const paths = namedPaths(plan.paths, made);
    const again = planFold(model, record, { ...options, paths });
    return { ...again, requantised: [], changes: made.flatMap(({ changes }) => changes), paths };
  },

  requantise(model, record, { options, plan }) {
    const { model: floats, values } = cloneModel(model);
    const own = new Map([...values].map(([mine, copy]) => [copy, mine] as const));
    const sites = planFold(floats, record, options).quantised as readonly WeightSite[];
    const made = dequantizeSites(floats, sites, dequantizer());
    const byTensor = new Map(made.map((weight) => [weight.to, weight]));
    const again = planFold(floats, record, { ...options, paths: namedPaths(plan.paths, made) });
    refuseCopies(again, byTensor);
    refuseOtherReaders(made, options.shared ?? 'clone');
    const quantised = new Set(sites.map(({ path }) => path));
    const requantised: Requantised[] = [];
    const tasks: FoldTask[] = [...plan.tasks];
    for (const task of again.tasks) {
      const from = byTensor.get(task.target);
      const mine = (value: Value): Value => own.get(value) ?? value;
      if (from !== undefined) {
        const { codes, scales, zeroPoints } = from.from;
        const zeros = zeroPoints === undefined ? undefined : mine(zeroPoints.value);
        requantised.push({
          task,
          from,
          stored: { codes: mine(codes), scales: mine(scales), zeroPoints: zeros },
        });
      } else if (task.sites.some((path) => quantised.has(path))) {
        tasks.push({ ...task, target: mine(task.target) });
      }
    }
    return { ...plan, tasks, impossible: again.impossible, quantised: [], requantised };
  },
};

/** Weights are named after their modules, which the copy has to find again. */
function namedPaths(
  given: ReadonlyMap<string, string>,
  made: readonly DequantizedWeight[],
): ReadonlyMap<string, string> {
  const weights = made.map(({ to, site }) => [to.name ?? '', wholePath(site)] as const);
  return new Map([...given, ...weights, ...made.flatMap(({ readers }) => [...readers])]);
}

/** Integers that others read as they are cannot change. */
function refuseCopies({ copies }: FoldPlan, quantised: ReadonlyMap<Value, DequantizedWeight>): void {
  const shared = copies.map(({ of }) => quantised.get(of)).find((weight) => weight !== undefined);
  if (shared !== undefined)
    fail('E_UNSUPPORTED', {
      message: 'The quantised weight is shared with readers that keep its numbers',
      where: shared.site.path,
      remedy: 'Pass --shared all to change it for all of them, or --quantised dequantise',
    });
}

/**
 * Integers, scales and zero points are written for one weight: whoever else reads them would read other numbers.
 * `made` is what the model without the quantised products holds, so that what is still read there is read by others.
 */
function refuseOtherReaders(made: readonly DequantizedWeight[], policy: SharedPolicy): void {
  const writers = new Map<Value, number>();
  for (const { from } of made)
    for (const value of new Set(written(from))) writers.set(value, (writers.get(value) ?? 0) + 1);
  for (const { from, site } of made) {
    // Readers of the codes read all of it, and are the ones who are to change.
    const forAll = policy === 'all' && from.codes.uses.size > 0;
    for (const value of written(from))
      if ((value.uses.size > 0 && !forAll) || (writers.get(value) ?? 0) > 1)
        fail('E_UNSUPPORTED', {
          message: `'${value.label}' of the quantised weight is shared with readers that keep its numbers`,
          where: site.path,
          remedy:
            value === from.codes && writers.get(value) === 1
              ? 'Pass --shared all to change it for all of them, or --quantised dequantise'
              : 'Fold with --quantised dequantise, or keep the adapter beside the weights (--quantised keep)',
        });
  }
}

/** The tensors of a matrix that may hold other numbers when it is stored again. */
function written(matrix: QuantizedMatrix): Value[] {
  const { codes, scales, zeroPoints } = matrix;
  return [codes, scales, ...(zeroPoints === undefined || keepsZeros(matrix) ? [] : [zeroPoints.value])];
}
