/** Puts a loss onto a model and differentiates it. */
import { fail } from '../../src/errors.js';
import { type Graph, type Output, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { valuesRead } from '../../src/order.js';
import { type DType, isFloat, tensorType } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { applyEdit } from '../edit.js';
import { backward } from '../grad/backward.js';
import type { Gradient } from '../grad/rule.js';
import { type BuiltLoss, type ConfiguredLoss, castTo, type LabelInput } from '../losses/loss.js';
import { appender } from './append.js';
import type { PublicNames } from './names.js';

/** A label input and the name its loss asked for. */
export interface PlacedLabel {
  readonly input: LabelInput;
  readonly value: Value;
}

export interface Objective {
  /** Builder of the loss; its gradient is built with it too. */
  readonly b: Builder;
  /** Appends what `b` built since the last call. */
  append(): void;
  readonly built: BuiltLoss;
  /** Mean loss, with the penalty where there is one, and weight: float32 scalars. */
  readonly loss: Value;
  /** What methods add to the mean loss, float32 scalar. */
  readonly penalty: Value | undefined;
  readonly weight: Value;
  /** 1/weight; finite where nothing counts. */
  readonly scale: Value;
  readonly labels: readonly PlacedLabel[];
  /** Names of the model's outputs that the loss reads. */
  readonly outputs: readonly string[];
  /** Dtype of the first output the loss reads. */
  readonly modelDtype: DType;
}

/** Label names are the same in every graph of one emission. */
export type LabelNames = Map<string, string>;

/**
 * Builds the loss behind the model's outputs and appends it to the graph. `penalty` joins the mean: over micro-batches
 * of weights wᵢ, Σ wᵢ (lossᵢ + penalty) / Σ wᵢ holds it once.
 */
export function addObjective(
  model: Model,
  loss: ConfiguredLoss,
  names: PublicNames,
  labelNames: LabelNames,
  penalty?: Value,
): Objective {
  const b = new Builder(model, { provenance: `loss ${loss.id}` });
  const labels: PlacedLabel[] = [];
  const read = new Set<Output>();
  const built = loss.build({
    b,
    output(name) {
      const found = findOutput(model.graph, name);
      read.add(found);
      return found.value;
    },
    label(input) {
      const name = labelNames.get(input.name) ?? names.claim(input.name);
      labelNames.set(input.name, name);
      const value = new Value({ name, type: tensorType(input.dtype, input.shape) });
      labels.push({ input, value });
      return value;
    },
  });
  // A batch in which nothing counts has loss 0 and no gradient, not 0/0.
  const scale = b.op.Reciprocal(b.op.Max([built.weight, smallest(b, built.weight)]));
  const task = castTo(b, b.op.Mul(built.total, scale), 'float32');
  const mean = penalty === undefined ? task : b.op.Add(task, penalty);
  const weight = castTo(b, built.weight, 'float32');
  const append = appender(model, b, `loss ${loss.id}`);
  append();
  for (const { value } of labels) model.graph.addInput(value);
  const first = [...read][0]?.value.type;
  return {
    b,
    append,
    built,
    loss: mean,
    penalty,
    weight,
    scale,
    labels,
    outputs: [...read].map((output) => output.name ?? output.value.label),
    modelDtype: first?.kind === 'tensor' ? first.dtype : 'float32',
  };
}

export interface DifferentiateOptions {
  /** Gradients of the mean loss; otherwise of the sum. */
  readonly mean: boolean;
  /** Factor while gradients flow, a number or a float32 scalar; divided out of the result. */
  readonly lossScale: number | Value;
  /** Gradient rules of one's own. */
  readonly rules?: readonly Gradient[];
}

/**
 * Gradients of the loss by those of `wrt` that it reads. Throws E_NO_GRADIENT where an op on the way has no rule.
 */
export function differentiate(
  model: Model,
  objective: Objective,
  wrt: readonly Value[],
  options: DifferentiateOptions,
): Map<Value, Value> {
  const ofTask = differentiateTask(model, objective, wrt, options);
  const ofPenalty = differentiatePenalty(model, objective, wrt, options);
  const { b, append } = objective;
  const sum = new Map(ofTask);
  for (const [value, gradient] of ofPenalty) {
    const known = sum.get(value);
    sum.set(value, known === undefined ? gradient : b.op.Add(known, gradient));
  }
  append();
  return sum;
}

/** Gradients of the penalty; without `mean` of penalty × weight, which the sum of the weights divides out again. */
function differentiatePenalty(
  model: Model,
  { penalty, weight }: Objective,
  wrt: readonly Value[],
  { mean, rules = [] }: DifferentiateOptions,
): Map<Value, Value> {
  if (penalty === undefined) return new Map();
  const read = ancestors(penalty);
  const { edit, gradients } = backward(model, {
    loss: penalty,
    ...(mean ? {} : { seed: weight }),
    wrt: wrt.filter((value) => read.has(value)),
    rules,
  });
  applyEdit(edit);
  return gradients;
}

function differentiateTask(
  model: Model,
  { b, append, built, scale }: Objective,
  wrt: readonly Value[],
  { mean, lossScale, rules = [] }: DifferentiateOptions,
): Map<Value, Value> {
  const dtype = lossDtype(built.total);
  const scaling = typeof lossScale === 'number' ? lossScale : castTo(b, lossScale, dtype);
  const alone = typeof scaling === 'number' ? b.scalar(scaling, dtype) : scaling;
  const factor = !mean ? alone : scaling === 1 ? scale : b.op.Mul(scale, scaling);
  const { of, value: seed } = built.gradient?.(factor) ?? { of: built.total, value: factor };
  append();
  const read = ancestors(of);
  const { edit, gradients } = backward(model, {
    loss: of,
    seed,
    wrt: wrt.filter((value) => read.has(value)),
    rules,
  });
  applyEdit(edit);
  if (lossScale === 1) return gradients;
  const inverse = typeof lossScale === 'number' ? 1 / lossScale : b.op.Reciprocal(lossScale);
  const unscaled = new Map(
    [...gradients].map(([value, gradient]) => {
      const by = typeof inverse === 'number' ? inverse : castTo(b, inverse, lossDtype(gradient));
      return [value, b.op.Mul(gradient, by)];
    }),
  );
  append();
  return unscaled;
}

/** All values that `value` is computed from, itself included. */
function ancestors(value: Value): Set<Value> {
  const seen = new Set<Value>([value]);
  for (const current of seen) {
    if (current.producer === undefined) continue;
    for (const input of valuesRead(current.producer)) seen.add(input);
  }
  return seen;
}

function findOutput(graph: Graph, name: string | undefined): Output {
  const { outputs } = graph;
  const known = outputs.map((output) => output.name ?? output.value.label).join(', ');
  if (name !== undefined)
    return (
      outputs.find((output) => output.name === name) ??
      fail('E_NO_MATCH', {
        message: `The model has no output '${name}'`,
        remedy: `It has: ${known}`,
      })
    );
  const floats = outputs.filter(({ value: { type } }) => type?.kind === 'tensor' && isFloat(type.dtype));
  return (
    outputs.find((output) => output.name === 'logits') ??
    floats[0] ??
    fail('E_NO_MATCH', {
      message: 'The model has no floating-point output for the loss',
      remedy: known === '' ? 'Export the model with its outputs' : `It has: ${known}`,
    })
  );
}

function lossDtype(value: Value): DType {
  return dtypeOf(value) ?? 'float32';
}

function smallest(b: Builder, like: Value): Value {
  return b.scalar(1e-12, lossDtype(like));
}
