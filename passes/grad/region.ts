/**
 * The active region of a graph: the nodes on some path from a trainable to the loss through floating-point values.
 * Everything else gets no gradient. Linear in the size of the graph.
 */
import { fail } from '../../src/errors.js';
import { type Node, type Value, walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { type DType, formatType, isFloat } from '../../src/types.js';
import { whyNotExpanded } from '../normalize/expand.js';
import { type GradientLookup, gradientLookup } from './registry.js';
import type { Gradient } from './rule.js';
import { stopsGradient } from './stop-gradient.js';

export interface ActiveNode {
  readonly node: Node;
  readonly gradient: Gradient;
}

export interface Region {
  /** In graph order. */
  readonly nodes: readonly ActiveNode[];
  /** Whether a gradient has to flow into the value. */
  isActive(value: Value): boolean;
}

/**
 * Finds the region.
 * @throws E_NO_GRADIENT when the loss does not depend on a trainable, or an op on a path has no rule.
 */
export function activeRegion(
  model: Model,
  wrt: readonly Value[],
  loss: Value,
  lookup: GradientLookup = gradientLookup(),
): Region {
  const rule = (node: Node): Gradient | undefined => ruleFor(node, model, lookup);
  const trace = new Trace(wrt, rule);
  for (const node of model.graph.nodes()) trace.forward(node);
  const candidates: Node[] = [];
  const needed = new Map<Value, Node | undefined>([[loss, undefined]]);
  for (const node of model.graph.nodesReversed()) {
    const output = node.outputs.find((value) => value !== null && needed.has(value) && trace.has(value));
    if (output === undefined || stopsGradient(node) || !trace.enters(node)) continue;
    candidates.push(node);
    for (const input of reads(node)) if (trace.has(input) && !needed.has(input)) needed.set(input, node);
  }
  const nodes = candidates.reverse().map((node) => ({
    node,
    gradient: rule(node) ?? missing(model, node, trace, needed, loss),
  }));
  return { nodes, isActive: (value) => trace.has(value) && needed.has(value) };
}

/** Which values depend on a trainable, and through which node each was first reached. */
class Trace {
  readonly #from = new Map<Value, Value | undefined>();

  constructor(
    wrt: readonly Value[],
    readonly rule: (node: Node) => Gradient | undefined,
  ) {
    for (const value of wrt) this.#from.set(value, undefined);
  }

  has(value: Value): boolean {
    return this.#from.has(value);
  }

  enters(node: Node): boolean {
    return this.source(node) !== undefined;
  }

  /** The first input of a node that depends on a trainable. */
  source(node: Node): Value | undefined {
    for (const input of reads(node)) if (this.#from.has(input)) return input;
    return undefined;
  }

  forward(node: Node): void {
    if (stopsGradient(node)) return;
    const source = this.source(node);
    if (source === undefined) return;
    const codes = this.rule(node)?.codes;
    const integers = isCode(source);
    for (const [index, output] of node.outputs.entries()) {
      if (output === null || this.#from.has(output)) continue;
      const carries = codes?.includes(index) ?? (carriesGradient(output) || (integers && isCode(output)));
      if (carries) this.#from.set(output, source);
    }
  }

  /** Values from a trainable to `value`. */
  path(value: Value): Value[] {
    const path = [value];
    for (let v = this.#from.get(value); v !== undefined; v = this.#from.get(v)) path.push(v);
    return path.reverse();
  }
}

/** Inputs of a node, with what its subgraphs capture. */
function* reads(node: Node): IterableIterator<Value> {
  for (const input of node.inputs) if (input !== null) yield input;
  for (const graph of node.subgraphs) {
    for (const inner of walkNodes(graph)) for (const input of inner.inputs) if (input !== null) yield input;
    for (const output of graph.outputs) yield output.value;
  }
}

function carriesGradient(value: Value): boolean {
  const { type } = value;
  if (type === undefined)
    return fail('E_INVALID_GRAPH', {
      message: 'The value has no type',
      where: value.label,
      remedy: 'Run shape inference before differentiating.',
    });
  // Sequences and optionals could carry gradients; their ops have no rules, which is reported when they are on a path.
  return type.kind === 'tensor' ? isFloat(type.dtype) : type.kind === 'sequence' || type.kind === 'optional';
}

const CODES: ReadonlySet<DType> = new Set(['int8', 'uint8', 'int16', 'uint16', 'int32', 'int4', 'uint4']);

/** Of a dtype that quantised activations have; shapes and indices are int64. */
function isCode({ type }: Value): boolean {
  return type?.kind === 'tensor' && CODES.has(type.dtype);
}

function ruleFor(node: Node, model: Model, lookup: GradientLookup): Gradient | undefined {
  if (node.subgraphs.length > 0) return undefined;
  return lookup(node, model.opsets.get(node.domain) ?? 1);
}

const SHOWN = 24;

function missing(
  model: Model,
  node: Node,
  trace: Trace,
  needed: ReadonlyMap<Value, Node | undefined>,
  loss: Value,
): never {
  const source = trace.source(node);
  const before = source === undefined ? [] : trace.path(source);
  const after: Node[] = [];
  let next: Node | undefined = node;
  while (next !== undefined) {
    const output: Value | null | undefined = next.outputs.find(
      (value) => value !== null && needed.has(value),
    );
    next = output === null || output === undefined ? undefined : needed.get(output);
    if (next !== undefined) after.push(next);
  }
  const steps = [
    ...before.map((value) => (value.producer === undefined ? value.label : value.producer.label)),
    `${node.label} ✗`,
    ...after.map((user) => user.label),
    `loss ${loss.label}`,
  ];
  const at = before.length;
  const shown = steps.length <= SHOWN ? steps : elide(steps, at);
  const control = node.subgraphs.length > 0;
  const reason = whyNotExpanded(model, node);
  const uncovered = reason === undefined ? ', which' : ` and no expansion, because ${reason}. It`;
  fail('E_NO_GRADIENT', {
    message: control
      ? `Control flow (${node.qualifiedOp}) lies between a trainable and the loss, and gradients do not enter its subgraphs`
      : `There is no gradient rule for ${node.qualifiedOp} (input ${formatType(source?.type)})${uncovered} lies between a trainable and the loss: ${shown.join(' → ')}`,
    where: control ? `${node.label}; path ${shown.join(' → ')}` : node.label,
    remedy: control
      ? 'Fix the branch where an input chooses it (--set <input>=false), export the model with the loop unrolled, or choose targets behind this node.'
      : 'Choose targets behind this node, expand it into standard ops, or give a rule for it (gradientRules, see docs/architecture.md).',
  });
}

/** The ends of the path and the surroundings of the step at `at`. */
function elide(steps: readonly string[], at: number): string[] {
  const keep = (i: number) => i < 4 || i >= steps.length - 4 || Math.abs(i - at) <= 6;
  const shown: string[] = [];
  steps.forEach((step, i) => {
    if (keep(i)) shown.push(step);
    else if (keep(i - 1)) shown.push('…');
  });
  return shown;
}
