/** Collapse, carried out: a trained adapter with training-only structure becomes one of the simpler methods it stands for. */
import {
  type AdapterEntry,
  type AdapterParam,
  type AdapterRecord,
  type AdapterSite,
  allParams,
  type CollapsedParam,
} from '../passes/adapter-record.js';
import { payloadOf } from '../passes/sites/index.js';
import { trainingDtype } from '../passes/targets/trainables.js';
import { fail } from '../src/errors.js';
import type { Value } from '../src/graph.js';
import type { Model } from '../src/model.js';
import type { Tensor } from '../src/tensor.js';
import { parseModel } from '../src/text/index.js';
import { countOf, isFloat } from '../src/types.js';
import { FormulaEvaluator } from './fold/evaluator.js';
import { type HostTensor, loadTensor, numbersOf, tensorOfNumbers } from './host-tensor.js';

export interface CollapsedAdapter {
  /** Names the methods that remain; the base and its digest are those of the adapter as it was trained. */
  readonly record: AdapterRecord;
  /** By key; in the dtype that parameters are trained in. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** Whether an adapter holds structure that it needs only while it is trained. */
export function collapses(record: AdapterRecord): boolean {
  return record.sites.some(({ collapse }) => collapse !== undefined);
}

/**
 * Evaluates what sites collapse to. An adapter without training-only structure comes back as it is.
 * @param tensors Parameters by key, as trained or as stored in an adapter file or a checkpoint.
 * @param base The base, the adapted model or an eval graph: whatever holds the tensors of the base that formulas read,
 * under their names. Needed only where they read any.
 * @throws E_INVALID_DATA where a tensor is missing, or a formula does not give what the simpler method takes.
 */
export async function collapseAdapter(
  adapter: {
    readonly record: AdapterRecord;
    readonly tensors: ReadonlyMap<string, Tensor | HostTensor>;
  },
  base?: Model,
): Promise<CollapsedAdapter> {
  const { record } = adapter;
  const tensors = new Map<string, HostTensor>();
  const source = new Operands(adapter.tensors, base);
  const evaluator = new FormulaEvaluator();
  const formulas = (record.formulas ?? []).map((text) => parseModel(text));
  try {
    for (const { params, collapse } of record.sites) {
      if (collapse === undefined)
        for (const { key } of Object.values(params)) tensors.set(key, await source.param(key));
      else
        for (const param of Object.values(collapse.params)) {
          const { key, formula, inputs } = param;
          if (tensors.has(key)) continue;
          const model =
            formulas[formula] ?? fail('E_INVALID_DATA', { message: `The record lacks formula ${formula}` });
          tensors.set(key, fitted(await evaluate(evaluator, model, inputs, source), param));
        }
    }
  } finally {
    await evaluator.close();
  }
  return { record: collapsedRecord(record), tensors };
}

/** The record of the adapter as it is saved. */
export function collapsedRecord(record: AdapterRecord): AdapterRecord {
  const { formulas: _formulas, ...rest } = record;
  const entries: AdapterEntry[] = [];
  const indices = new Map<string, number>();
  // By entry, so that methods go on stacking in the order in which they were given.
  const sites = record.entries.flatMap((trained, from) =>
    record.sites
      .filter(({ entry }) => entry === from)
      .map(({ collapse, ...site }): AdapterSite => {
        const id = `${from} ${collapse?.method ?? ''}`;
        const entry = indices.get(id) ?? entries.length;
        indices.set(id, entry);
        if (collapse === undefined) {
          if (entry === entries.length) entries.push(trained);
          return { ...site, entry };
        }
        const { method, config } = collapse;
        // The entry is configured as its first site is.
        if (entry === entries.length) entries.push({ method, config });
        return {
          ...site,
          entry,
          config,
          params: Object.fromEntries(Object.entries(collapse.params).map(plain)),
        };
      }),
  );
  return { ...rest, entries, sites };
}

function plain([role, { formula: _formula, inputs: _inputs, ...param }]: [string, CollapsedParam]): [
  string,
  AdapterParam,
] {
  return [role, param];
}

/** Throws E_INVALID_DATA when the model lacks a tensor of the base that a formula reads. */
export function checkCollapse(record: AdapterRecord, base: Model | undefined): void {
  const source = new Operands(new Map(), base);
  for (const { collapse } of record.sites)
    for (const { inputs } of Object.values(collapse?.params ?? {}))
      for (const input of Object.values(inputs)) if ('base' in input) source.stored(input.base);
}

/** Whether formulas read tensors of the base. */
export function collapseReadsBase(record: AdapterRecord): boolean {
  return record.sites.some(({ collapse }) =>
    Object.values(collapse?.params ?? {}).some(({ inputs }) =>
      Object.values(inputs).some((input) => 'base' in input),
    ),
  );
}

/** Elements of all tensors that an adapter file holds. */
export function storedElements(record: AdapterRecord): number {
  return allParams(record).reduce((sum, { shape }) => sum + countOf(shape), 0);
}

async function evaluate(
  evaluator: FormulaEvaluator,
  formula: Model,
  inputs: CollapsedParam['inputs'],
  source: Operands,
): Promise<HostTensor> {
  const feeds: Record<string, HostTensor> = {};
  for (const [name, input] of Object.entries(inputs))
    feeds[name] = copied('param' in input ? await source.param(input.param) : await source.base(input.base));
  return evaluator.run(formula, feeds);
}

/** The computed value in the dtype it is stored in. */
function fitted(value: HostTensor, { key, shape, dtype }: AdapterSite['params'][string]): HostTensor {
  if (value.dims.join() !== shape.join() || isFloat(value.dtype) !== isFloat(dtype))
    fail('E_INVALID_DATA', {
      message: `The collapsed value is ${value.dtype}[${value.dims.join(', ')}], its parameter is ${dtype}[${shape.join(', ')}]`,
      where: key,
      remedy: "Correct the method's collapse, and insert it again",
    });
  const wanted = isFloat(dtype) ? trainingDtype(dtype) : dtype;
  return value.dtype === wanted ? value : tensorOfNumbers(wanted, shape, numbersOf(value));
}

/** A copy that may be given away; floating-point numbers in float32, in which formulas compute. */
function copied(tensor: HostTensor): HostTensor {
  if (tensor.dtype === 'float32' || !isFloat(tensor.dtype)) return { ...tensor, data: tensor.data.slice() };
  return tensorOfNumbers('float32', tensor.dims, numbersOf(tensor));
}

/** What formulas read. */
class Operands {
  #byName: ReadonlyMap<string, Value> | undefined;

  constructor(
    readonly tensors: ReadonlyMap<string, Tensor | HostTensor>,
    readonly model: Model | undefined,
  ) {}

  async param(key: string): Promise<HostTensor> {
    const tensor =
      this.tensors.get(key) ??
      fail('E_INVALID_DATA', {
        message: `The adapter lacks tensor '${key}'`,
        remedy: 'Use the tensors of the run that trained it',
      });
    return tensor.data instanceof Uint8Array ? (tensor as HostTensor) : loadTensor(tensor as Tensor);
  }

  async base(name: string): Promise<HostTensor> {
    return loadTensor(this.stored(name));
  }

  stored(name: string): Tensor {
    const value = this.#values().get(name);
    return (
      (value === undefined ? undefined : payloadOf(value)) ??
      fail('E_INVALID_DATA', {
        message: `The adapter's saved form is computed from '${name}' of the base, which is not in the model`,
        where: this.model?.path ?? 'collapse',
        remedy: 'Give the base model',
      })
    );
  }

  #values(): ReadonlyMap<string, Value> {
    if (this.#byName !== undefined) return this.#byName;
    const found = new Map<string, Value>();
    if (this.model !== undefined) {
      const { graph } = this.model;
      const outputs = [...graph.nodes()].flatMap((node) => (node.op === 'Constant' ? node.outputs : []));
      for (const value of [...graph.initializers, ...outputs])
        if (value?.name !== undefined) found.set(value.name, value);
    }
    this.#byName = found;
    return found;
  }
}
