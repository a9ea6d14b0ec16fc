/**
 * Reverse-mode differentiation as a source-to-source pass over the main graph. Rules in `passes/grad` state the math of
 * one op; this driver finds the active region, walks it backwards, adds up cotangents, sums broadcast axes and drops
 * what nothing reads. Scalar factors commute with every vector-Jacobian product, so they are put off until two
 * cotangents meet or a gradient is complete; most vanish into a Gemm.
 */
import { fail } from '../../src/errors.js';
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { elementCount, isFloat } from '../../src/types.js';
import type { Edit } from '../edit.js';
import { GradientContext } from './context.js';
import { activeRegion } from './region.js';
import { gradientLookup } from './registry.js';
import type { Gradient, Scaled } from './rule.js';
import { Shapes } from './shapes.js';

export interface BackwardOptions {
  /** A scalar of the main graph, or a value of any shape together with a seed. */
  readonly loss: Value;
  /** Inputs, initializers or intermediate values to differentiate by. */
  readonly wrt: readonly Value[];
  /** Cotangent of the loss, with its shape and dtype; 1 by default. */
  readonly seed?: Value;
  /** What the gradient is when the loss does not depend on a value: an error (default) or zeros. */
  readonly unreachable?: 'error' | 'zeros';
  /** Rules of one's own; they win over those that ship. */
  readonly rules?: readonly Gradient[];
}

export interface BackwardResult {
  /** Appends the backward nodes to the main graph. */
  readonly edit: Edit;
  /** Gradient of every `wrt`, with its shape and dtype. */
  readonly gradients: Map<Value, Value>;
}

/**
 * Gradients of `loss` with respect to `wrt`. Every value on the way needs a type (`inferModel`).
 * @throws E_NO_GRADIENT naming the path when an op on it has no rule; E_TYPE when the loss is not a float scalar.
 */
export function backward(model: Model, options: BackwardOptions): BackwardResult {
  const { loss, wrt } = options;
  checkLoss(loss, options.seed);
  const region = activeRegion(model, wrt, loss, gradientLookup(options.rules));
  const b = new Builder(model, { provenance: 'backward' });
  const cotangents = new Cotangents(b);
  const shapes = new Shapes(model, b);
  cotangents.add(loss, options.seed ?? one(b, shapes, loss));
  for (let i = region.nodes.length - 1; i >= 0; i--) {
    const active = region.nodes[i];
    if (active !== undefined) pullBack(active.node, active.gradient, { shapes, cotangents, region });
  }
  const gradients = new Map<Value, Value>();
  for (const value of wrt)
    gradients.set(value, cotangents.finished(value) ?? unreached(value, options, shapes));
  return { edit: prune(model, b, [...gradients.values()]), gradients };
}

interface Walk {
  readonly shapes: Shapes;
  readonly cotangents: Cotangents;
  readonly region: { isActive(value: Value): boolean };
}

function pullBack(node: Node, gradient: Gradient, { shapes, cotangents, region }: Walk): void {
  const incoming = cotangents.of(node);
  if (incoming === undefined) return;
  const needs = (index: number) => {
    const value = node.inputs[index];
    return value !== null && value !== undefined && region.isActive(value);
  };
  const c = new GradientContext({ node, shapes, cotangents: incoming.values, scale: incoming.scale, needs });
  const contributions = gradient.rule(c);
  node.inputs.forEach((input, index) => {
    const contribution = contributions[index];
    if (input === null || contribution === null || contribution === undefined || !needs(index)) return;
    const made = contribution();
    const { value, scale } = 'scale' in made ? made : { value: made, scale: 1 };
    const fitted = gradient.broadcasts === true ? shapes.unbroadcast(value, input) : value;
    cotangents.add(input, fitted, scale * c.pendingScale);
  });
}

/** Sums of contributions, each with a factor that is put off. */
class Cotangents {
  readonly #b: Builder;
  readonly #sums = new Map<Value, Scaled>();

  constructor(b: Builder) {
    this.#b = b;
  }

  add(target: Value, value: Value, scale = 1): void {
    const known = this.#sums.get(target);
    this.#sums.set(target, known === undefined ? { value, scale } : this.#sum(known, { value, scale }));
  }

  /** s₁·a + s₂·b = s₁·(a + (s₂/s₁)·b) */
  #sum(a: Scaled, b: Scaled): Scaled {
    const { op } = this.#b;
    if (a.scale === b.scale) return { value: op.Add(a.value, b.value), scale: a.scale };
    if (a.scale === -b.scale) return { value: op.Sub(a.value, b.value), scale: a.scale };
    if (a.scale === 0) return b;
    return { value: op.Add(a.value, op.Mul(b.value, b.scale / a.scale)), scale: a.scale };
  }

  /** Cotangents of a node's outputs under one common factor; undefined when the loss reads none of them. */
  of(node: Node): { values: (Value | undefined)[]; scale: number } | undefined {
    const sums = node.outputs.map((output) => (output === null ? undefined : this.#sums.get(output)));
    const present = sums.filter((sum) => sum !== undefined);
    const first = present[0];
    if (first === undefined) return undefined;
    const common = present.every(({ scale }) => scale === first.scale);
    if (common) return { values: sums.map((sum) => sum?.value), scale: first.scale };
    return { values: sums.map((sum) => sum && this.#applied(sum)), scale: 1 };
  }

  /** The sum of a value with its factor applied. */
  finished(target: Value): Value | undefined {
    const sum = this.#sums.get(target);
    return sum && this.#applied(sum);
  }

  #applied({ value, scale }: Scaled): Value {
    return scale === 1 ? value : this.#b.op.Mul(value, scale);
  }
}

function checkLoss(loss: Value, seed: Value | undefined): void {
  if (loss.type?.kind !== 'tensor' || !isFloat(loss.type.dtype))
    fail('E_TYPE', { message: 'The loss is not a floating-point tensor', where: loss.label });
  const count = elementCount(loss.type.shape);
  if (seed === undefined && count !== 1 && loss.type.shape !== null && loss.type.shape.length > 0)
    fail('E_TYPE', {
      message: `The loss has shape [${loss.type.shape.join(', ')}] and is no scalar`,
      where: loss.label,
      remedy: 'Reduce it to one number, or pass a seed of the same shape.',
    });
}

function one(b: Builder, shapes: Shapes, loss: Value): Value {
  const scalar = b.scalar(1, shapes.dtype(loss));
  return shapes.dims(loss)?.length === 0 ? scalar : shapes.expandLike(scalar, loss);
}

function unreached(value: Value, { loss, unreachable }: BackwardOptions, shapes: Shapes): Value {
  if (unreachable === 'zeros') return shapes.zerosLike(value);
  return fail('E_NO_GRADIENT', {
    message: `The loss '${loss.label}' does not depend on '${value.label}'`,
    where: value.label,
    remedy: 'Leave this module out of the targets, or choose a loss that reads its output.',
  });
}

/** Only the nodes and constants that the gradients need. */
function prune(model: Model, b: Builder, gradients: readonly Value[]): Edit {
  const live = new Set<Value>(gradients);
  const nodes: Node[] = [];
  for (const node of [...b.nodes].reverse()) {
    if (!node.outputs.some((output) => output !== null && live.has(output))) continue;
    nodes.push(node);
    for (const input of node.inputs) if (input !== null) live.add(input);
  }
  return {
    label: `backward: gradients of ${gradients.length} value${gradients.length === 1 ? '' : 's'}`,
    graph: model.graph,
    add: { nodes: nodes.reverse(), at: 'end' },
    addInitializers: b.initializers.filter((value) => live.has(value)),
  };
}
