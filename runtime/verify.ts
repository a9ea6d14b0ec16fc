/** Compares what two models compute: same inputs, several shapes, every output. */
import { fail } from '../src/errors.js';
import { type Graph, walkNodes } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { type DType, isFloat } from '../src/types.js';
import { type Difference, defaultTolerance, difference } from './compare.js';
import type { HostTensor } from './host-tensor.js';
import { type ModelSource, openModel } from './model-session.js';
import { hasSwitch, pastSymbols } from './past-inputs.js';
import { inputSymbols, randomInputs, requiredInputs, type Sizes } from './random-inputs.js';
import { SessionHost, type SessionOptions, type Tensors } from './session.js';
import { defaultCases, type ShapeCase, shapeCase } from './sizes.js';

export interface VerifyOptions {
  /** Largest accepted difference relative to the scale of an output; default: derived, see `defaultTolerance`. */
  readonly tolerance?: number;
  readonly seed?: number;
  /** Sizes of symbols, one entry per case; default: three sizes, the last with padded masks. */
  readonly sizes?: readonly Sizes[];
  /** Given inputs instead of random ones, one entry per case. */
  readonly inputs?: readonly Tensors[];
  /** Outputs of the second model by those of the first, where names differ. */
  readonly outputs?: Readonly<Record<string, string>>;
  /** Also require the same nodes in the same order with the same names. Default false. */
  readonly structure?: boolean;
  readonly session?: SessionOptions;
}

export interface OutputReport extends Difference {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly pass: boolean;
}

export interface CaseReport {
  readonly label: string;
  readonly outputs: readonly OutputReport[];
  readonly pass: boolean;
}

export interface VerifyReport {
  readonly a: string;
  readonly b: string;
  readonly tolerance: number;
  readonly cases: readonly CaseReport[];
  /** Largest `relative` and `maxAbs` over all outputs and cases. */
  readonly worst: { readonly relative: number; readonly maxAbs: number; readonly output: string };
  /** True when bfloat16 arithmetic was done in float32, because the provider has no bfloat16. */
  readonly widened: boolean;
  /** First difference of the node lists, or null when equal; absent when not asked for. */
  readonly structure?: string | null;
  readonly pass: boolean;
}

/**
 * Runs both models and compares every output of the first one.
 * @throws E_VERIFY when an output is missing or has another type; a numeric difference is not an error but `pass: false`.
 */
export async function verify(
  a: ModelSource,
  b: ModelSource,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const host = new SessionHost();
  try {
    const first = await openModel(host, a, options.session, 'first model');
    const second = await openModel(host, b, options.session, 'second model');
    const tolerance = options.tolerance ?? defaultTolerance(first.model, second.model);
    const pairs = outputPairs(first.model, second.model, options.outputs ?? {}, second.label);
    const cases: CaseReport[] = [];
    for (const { label, inputs } of testCases(first.model, options)) {
      const x = await first.session.run(
        only(inputs, first.model),
        pairs.map(([name]) => name),
      );
      const y = await second.session.run(
        only(inputs, second.model),
        pairs.map(([, name]) => name),
      );
      const outputs = pairs.map(([name, other]) => compareOutput(name, x[name], y[other], tolerance));
      cases.push({ label, outputs, pass: outputs.every((output) => output.pass) });
    }
    await first.dispose();
    await second.dispose();
    const structure =
      options.structure === true ? structuralDifference(first.model, second.model) : undefined;
    return {
      a: first.label,
      b: second.label,
      tolerance,
      cases,
      worst: worstOf(cases),
      widened: first.widened || second.widened,
      ...(structure === undefined ? {} : { structure }),
      pass: cases.every((entry) => entry.pass) && (structure === undefined || structure === null),
    };
  } finally {
    await host.close();
  }
}

function testCases(model: Model, options: VerifyOptions): { label: string; inputs: Tensors }[] {
  if (options.inputs !== undefined)
    return options.inputs.map((inputs, i) => ({ label: `given inputs ${i + 1}`, inputs }));
  const symbols = inputSymbols(model);
  const sized =
    options.sizes?.map((sizes, i) => shapeCase(symbols, sizes, i % 2 === 1)) ??
    withoutPast(model, defaultCases(symbols));
  return sized.map(({ label, sizes, padded }, i) => ({
    label,
    inputs: randomInputs(model, { seed: (options.seed ?? 0) + i, sizes, padded }),
  }));
}

/** A merged decoder is run through its other branch, too. */
function withoutPast(model: Model, cases: readonly ShapeCase[]): readonly ShapeCase[] {
  const [first] = cases;
  if (first === undefined || !hasSwitch(model.graph)) return cases;
  const empty = Object.fromEntries([...pastSymbols(model.graph)].map((symbol) => [symbol, 0]));
  return [...cases, { label: 'without a past', sizes: { ...first.sizes, ...empty }, padded: false }];
}

/** A model may lack inputs of the other (a folded model has no adapter inputs); the rest must be given. */
function only(inputs: Tensors, model: Model): Tensors {
  const names = new Set(requiredInputs(model.graph).map((value) => value.label));
  return Object.fromEntries(Object.entries(inputs).filter(([name]) => names.has(name)));
}

function outputPairs(
  a: Model,
  b: Model,
  renamed: Readonly<Record<string, string>>,
  where: string,
): [string, string][] {
  const names = outputNames(b.graph);
  return outputNames(a.graph).map((name) => {
    const other = renamed[name] ?? name;
    if (!names.includes(other))
      fail('E_VERIFY', {
        message: `The second model has no output '${other}'`,
        where,
        remedy: `It has ${names.join(', ')}; map names that differ.`,
      });
    return [name, other];
  });
}

function outputNames(graph: Graph): string[] {
  return graph.outputs.map((output) => output.name ?? output.value.label);
}

function compareOutput(
  name: string,
  a: HostTensor | undefined,
  b: HostTensor | undefined,
  tolerance: number,
): OutputReport {
  if (a === undefined || b === undefined)
    return fail('E_VERIFY', { message: 'A model returned no value', where: name });
  const found = difference(a, b, `output '${name}'`);
  // Integers and booleans (class numbers, masks) have no rounding to excuse a difference.
  const limit = isFloat(a.dtype) ? tolerance : 0;
  return { name, dtype: a.dtype, dims: a.dims, ...found, pass: found.relative <= limit };
}

function worstOf(cases: readonly CaseReport[]): VerifyReport['worst'] {
  let worst = { relative: 0, maxAbs: 0, output: '' };
  for (const { outputs } of cases)
    for (const { name, relative, maxAbs } of outputs)
      if (relative > worst.relative || worst.output === '')
        worst = { relative, maxAbs: Math.max(maxAbs, worst.maxAbs), output: name };
      else if (maxAbs > worst.maxAbs) worst = { ...worst, maxAbs };
  return worst;
}

/** First place where the node lists differ in op, names or wiring; null when they do not. Payloads are not compared. */
export function structuralDifference(a: Model, b: Model): string | null {
  const left = walkNodes(a.graph);
  const right = walkNodes(b.graph);
  for (let i = 0; ; i++) {
    const x = left.next();
    const y = right.next();
    if (x.done === true || y.done === true)
      return x.done === y.done ? null : `one model has ${i} nodes, the other has more`;
    const p = x.value;
    const q = y.value;
    const wires = (values: readonly ({ label: string } | null)[]) =>
      values.map((value) => value?.label ?? '').join(', ');
    if (p.qualifiedOp !== q.qualifiedOp || p.name !== q.name)
      return `node ${i} is ${p.label} in one model and ${q.label} in the other`;
    if (wires(p.inputs) !== wires(q.inputs) || wires(p.outputs) !== wires(q.outputs))
      return `node ${i}, ${p.label}, reads (${wires(p.inputs)}) in one model and (${wires(q.inputs)}) in the other`;
  }
}
