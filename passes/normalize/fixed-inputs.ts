/**
 * Inputs that training settles once for all: which branch of a merged decoder is trained, and that sequences start
 * without a past. An input that is fixed is computed in the graph, and whoever drives it need not know of it.
 */
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import { type Graph, type Node, redirectUses, Value, walkGraphs } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { didYouMean } from '../../src/nearest.js';
import { Builder } from '../../src/ops/builder.js';
import { valuesRead } from '../../src/order.js';
import { countOf, type Dim, tensorType } from '../../src/types.js';
import { dtypeOf, shapeOf } from '../../src/value-type.js';
import { runPasses } from '../runner.js';
import { branchesPass, branchOf, isIf } from './branches.js';
import { emptyConcatPass, isPast, pastAxis } from './pasts.js';

/**
 * What becomes of an input of the model: `feed` leaves it to the data, `empty` gives it length 0 along the axis on which
 * a past grows, a number or boolean fills it.
 */
export type InputSetting = 'feed' | 'empty' | number | boolean;

/** Settings by the name of the input; `*` in a name stands for any characters. The first that fits wins. */
export type InputSettings = Readonly<Record<string, InputSetting>>;

/**
 * The model with its inputs fixed: a copy, or the model itself where there is nothing to fix. What `settings` leaves open
 * is decided as follows. A boolean that chooses a branch of an If chooses the one that reads fewer pasts, which is how
 * a sequence starts; where both read as many it stays an input. A past that is still read is empty.
 * Types behind what is fixed are stale in places: infer them before use.
 * @throws E_NO_MATCH for a name that is no input, E_USAGE for a setting that the input cannot have.
 */
export function fixInputs(adapted: Model, settings: InputSettings = {}): Model {
  checkNames(adapted.graph, settings);
  const open = adapted.graph.inputs.filter(({ tensor }) => tensor === undefined);
  const switches = open.filter((input) => settingOf(input, settings) !== undefined || isSwitch(input));
  if (switches.length === 0 && !open.some(isPast)) return adapted;
  const { model, values } = cloneModel(adapted);
  // Conditions may be computed from shapes, and sizes of a past be known only from the op that reads it.
  inferModel(model);
  const fixer = new Fixer(model);
  for (const input of switches) {
    const setting = settingOf(input, settings) ?? branchWithoutPast(input);
    if (setting !== undefined && setting !== 'feed') fixer.fix(values.get(input) as Value, setting);
  }
  runPasses(model, [branchesPass]);
  const read = readInGraph(model.graph);
  for (const input of open) {
    const copy = values.get(input) as Value;
    if (settingOf(input, settings) !== undefined || !isPast(copy)) continue;
    if (!read.has(copy)) fixer.drop(copy, true);
    else if (pastAxis(model.graph, copy) !== undefined) fixer.fix(copy, 'empty');
  }
  fixer.finish();
  inferModel(model);
  runPasses(model, [emptyConcatPass, branchesPass]);
  return model;
}

function settingOf({ name = '' }: Value, settings: InputSettings): InputSetting | undefined {
  for (const [pattern, setting] of Object.entries(settings)) if (matches(pattern, name)) return setting;
  return undefined;
}

function matches(pattern: string, name: string): boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 's').test(name);
}

function checkNames(graph: Graph, settings: InputSettings): void {
  const names = graph.inputs.map(({ name = '' }) => name);
  for (const pattern of Object.keys(settings))
    if (!names.some((name) => matches(pattern, name)))
      fail('E_NO_MATCH', {
        message: `The model has no input '${pattern}'`,
        remedy: didYouMean(pattern, names),
      });
}

/** If nodes whose condition is the input itself. */
function switchedBy(input: Value): Node[] {
  return [...input.uses].flatMap((use) =>
    use.kind === 'node' && use.index === 0 && isIf(use.node) ? [use.node] : [],
  );
}

/** Whether a boolean input chooses a branch of an If. */
export function isSwitch(input: Value): boolean {
  return dtypeOf(input) === 'bool' && switchedBy(input).length > 0;
}

/** The value of a switch under which no past, or fewer pasts, are read; undefined for all other inputs. */
export function branchWithoutPast(input: Value): boolean | undefined {
  const pasts = (taken: boolean) =>
    switchedBy(input).reduce((sum, node) => sum + countPasts(branchOf(node, taken)), 0);
  const [yes, no] = [pasts(true), pasts(false)];
  return yes === no ? undefined : yes < no;
}

function countPasts(branch: Graph): number {
  return [...readInGraph(branch)].filter((value) => value.producer === undefined && isPast(value)).length;
}

/** Values that a graph and those nested in it read. */
function readInGraph(graph: Graph): Set<Value> {
  const read = new Set<Value>();
  for (const inner of walkGraphs(graph)) {
    for (const node of inner.nodes()) for (const value of valuesRead(node)) read.add(value);
    for (const { value } of inner.outputs) read.add(value);
  }
  return read;
}

/** Replaces inputs of one model. */
class Fixer {
  readonly #graph: Graph;
  readonly #b: Builder;
  readonly #fixed: { readonly input: Value; readonly setting: Exclude<InputSetting, 'feed'> }[] = [];
  #emptied = false;

  constructor(readonly model: Model) {
    this.#graph = model.graph;
    this.#b = new Builder(model, { provenance: 'fixed input' });
  }

  /** Scalars at once, so that branches they choose can be inlined; what needs sizes of other inputs at the end. */
  fix(input: Value, setting: Exclude<InputSetting, 'feed'>): void {
    const dims = staticDims(input);
    const dtype = dtypeOf(input);
    if (setting === 'empty' && pastAxis(this.#graph, input) === undefined)
      fail('E_USAGE', {
        message: 'The input has no axis that could be empty',
        where: input.label,
        remedy: 'Only keys and values of earlier steps, with a length of their own, can be empty',
      });
    this.drop(input);
    if (setting === 'empty' || dims === undefined || dtype === undefined) {
      this.#fixed.push({ input, setting });
      return;
    }
    const tensor = tensorOf(dtype, dims, new Array<number>(countOf(dims)).fill(Number(setting)));
    const stored = new Value({ hint: input.hint, type: tensorType(dtype, dims), tensor });
    this.#graph.addInitializer(stored);
    redirectUses(input, stored);
  }

  /** `unread`: nothing computes with it; a past of this kind is as good as empty. */
  drop(input: Value, unread = false): void {
    this.#emptied ||= unread;
    this.#graph.inputs.splice(this.#graph.inputs.indexOf(input), 1);
  }

  finish(): void {
    const first = this.#graph.firstNode;
    if (this.#emptied || this.#fixed.some(({ setting }) => setting === 'empty')) this.#joinMasks();
    for (const { input, setting } of this.#fixed) {
      const zero = setting === 'empty' ? this.#pastAxis(input) : undefined;
      redirectUses(input, this.#filled(input, setting === 'empty' ? 0 : Number(setting), zero));
    }
    for (const value of this.#b.initializers) this.#graph.addInitializer(value);
    for (const node of this.#b.nodes)
      if (first === undefined) this.#graph.append(node);
      else this.#graph.insertBefore(first, node);
  }

  /** As `pastAxis`, of a past that is no input any more. */
  #pastAxis(input: Value): number | undefined {
    return pastAxis(this.#graph, input);
  }

  #filled(input: Value, fill: number, zero: number | undefined): Value {
    const { op } = this.#b;
    const dtype = dtypeOf(input) ?? 'float32';
    const sizes = (shapeOf(input) ?? []).map((dim, axis) =>
      axis === zero ? [0] : typeof dim === 'number' ? [dim] : this.#size(input, dim, axis),
    );
    const value = tensorOf(dtype, [1], [fill]);
    return op.ConstantOfShape(op.Concat(sizes, { axis: 0 }), { value });
  }

  /** The size of a symbolic axis, read off an input that has it too; first axes are batches. */
  #size(input: Value, dim: Dim, axis: number): Value {
    for (const other of this.#graph.inputs) {
      const at = dim === null ? -1 : (shapeOf(other)?.indexOf(dim) ?? -1);
      if (at >= 0) return this.#b.op.Shape(other, { start: at, end: at + 1 });
    }
    const [batch] = this.#graph.inputs.filter((other) => typeof shapeOf(other)?.[0] === 'string');
    if (axis === 0 && batch !== undefined) return this.#b.op.Shape(batch, { start: 0, end: 1 });
    const size = presentSize(input, axis);
    if (size !== undefined) return this.#b.ints([size]);
    return fail('E_USAGE', {
      message: `The size of axis ${axis} is that of no other input`,
      where: input.label,
      remedy: `Leave the input to the data: ${input.label}=feed`,
    });
  }

  /** A mask over past and tokens is one over the tokens. */
  #joinMasks(): void {
    const { inputs } = this.#graph;
    const tokens = inputs.find(({ name = '' }) => /input_ids$/.test(name));
    const shape = tokens === undefined ? undefined : shapeOf(tokens);
    if (shape?.length !== 2) return;
    for (const input of [...inputs, ...this.#fixed.map((fixed) => fixed.input)]) {
      const own = shapeOf(input);
      if (!/attention_mask$/.test(input.name ?? '') || input.type?.kind !== 'tensor') continue;
      const length = own?.[1];
      const alone = inputs.every((other) => other === input || !shapeOf(other)?.includes(length ?? null));
      if (own?.length === 2 && typeof length === 'string' && alone) input.type = { ...input.type, shape };
    }
  }
}

/** A number for an axis of a past that an op grows into a present, which has it too. */
function presentSize(past: Value, axis: number): number | undefined {
  const rank = shapeOf(past)?.length;
  for (const user of past.users)
    for (const output of user.outputs) {
      const shape = shapeOf(output);
      const dim = shape?.length === rank ? shape?.[axis] : undefined;
      if (typeof dim === 'number') return dim;
    }
  return undefined;
}

function staticDims(input: Value): number[] | undefined {
  const shape = shapeOf(input);
  return shape?.every((dim) => typeof dim === 'number') ? (shape as number[]) : undefined;
}
