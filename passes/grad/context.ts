/** What a gradient rule sees: the node, its values, the cotangents of its outputs, and a builder. */
import { floatAttribute, intAttribute, intsAttribute, textAttribute } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import type { Node, Value } from '../../src/graph.js';
import { constantOf, intsOf } from '../../src/infer/index.js';
import type { Builder } from '../../src/ops/builder.js';
import type { DType } from '../../src/types.js';
import type { Contribution } from './rule.js';
import { scalarOf } from './scalars.js';
import type { Shapes } from './shapes.js';

export class GradientContext {
  readonly node: Node;
  readonly shapes: Shapes;
  readonly #cotangents: readonly (Value | undefined)[];
  readonly #needs: (index: number) => boolean;
  #scale: number;

  constructor(init: {
    node: Node;
    shapes: Shapes;
    cotangents: readonly (Value | undefined)[];
    scale: number;
    needs: (index: number) => boolean;
  }) {
    this.node = init.node;
    this.shapes = init.shapes;
    this.#cotangents = init.cotangents;
    this.#scale = init.scale;
    this.#needs = init.needs;
  }

  get b(): Builder {
    return this.shapes.b;
  }
  get op(): Builder['op'] {
    return this.shapes.b.op;
  }

  /** The first input. */
  get x(): Value {
    return this.node.input(0);
  }
  /** The first output. */
  get y(): Value {
    return this.node.output(0);
  }
  /** The cotangent of the first output. */
  get dy(): Value {
    return this.cotangent(0);
  }

  input(index: number): Value {
    return this.node.input(index);
  }
  /** An input that may be omitted. */
  optional(index: number): Value | undefined {
    return this.node.inputs[index] ?? undefined;
  }

  /** The cotangent of an output; zeros where the loss does not depend on that output. */
  cotangent(index: number): Value {
    return this.#cotangents[index] ?? this.shapes.zerosLike(this.node.output(index));
  }
  /** Whether the loss depends on the output. */
  hasCotangent(index: number): boolean {
    return this.#cotangents[index] !== undefined;
  }

  /** Whether a gradient has to flow into the input. */
  needs(index: number): boolean {
    return this.#needs(index);
  }

  /**
   * The factor that is put off on the cotangents, for rules that can apply it for free (Gemm's alpha). The rule's
   * contributions then count as final.
   */
  takeScale(): number {
    const scale = this.#scale;
    this.#scale = 1;
    return scale;
  }
  /** What is left to multiply contributions with; read by the driver. */
  get pendingScale(): number {
    return this.#scale;
  }

  int(name: string, fallback: number): number {
    return intAttribute(this.node, name, fallback);
  }
  float(name: string, fallback: number): number {
    return floatAttribute(this.node, name, fallback);
  }
  string(name: string, fallback: string): string {
    return textAttribute(this.node, name, fallback);
  }
  ints(name: string): number[] | undefined {
    return intsAttribute(this.node, name);
  }

  /** Numbers given as an attribute in old opsets and as an input in new ones; undefined when absent. */
  intsParameter(name: string, index: number): number[] | undefined {
    const attribute = this.ints(name);
    if (attribute !== undefined) return attribute;
    const value = this.optional(index);
    if (value === undefined) return undefined;
    return (
      intsOf(value)?.map(Number) ?? this.unsupported(`its ${name} are computed at run time (${value.label})`)
    );
  }

  /** The contents of an integer input when they are known. */
  known(value: Value): number[] | undefined {
    return intsOf(value)?.map(Number);
  }
  isConstant(value: Value): boolean {
    return constantOf(value) !== undefined;
  }
  /** The number of a one-element constant. */
  scalar(value: Value | undefined): number | undefined {
    return scalarOf(value);
  }

  /** An axis attribute, counted from the front of the first input. */
  axis(name = 'axis', fallback = 0): number {
    return this.shapes.axis(this.x, this.int(name, fallback));
  }
  rank(value = this.x): number {
    return this.shapes.rank(value);
  }
  dtype(value = this.x): DType {
    return this.shapes.dtype(value);
  }

  /** `value` as a constant of the dtype of `like`. */
  number(value: number, like: Value = this.x): Value {
    return this.b.scalar(value, this.dtype(like));
  }
  /** A boolean as 0 or 1 in the dtype of `like`. */
  mask(condition: Value, like: Value = this.x): Value {
    return this.op.Cast(condition, { to: this.dtype(like) });
  }
  castLike(value: Value, like: Value): Value {
    const to = this.dtype(like);
    return this.dtype(value) === to ? value : this.op.Cast(value, { to });
  }

  /** A contribution that fails when it is asked for. */
  stop(reason: string): Contribution {
    return () => this.unsupported(reason);
  }
  unsupported(reason: string): never {
    return fail('E_NO_GRADIENT', {
      message: `The gradient of ${this.node.qualifiedOp} is not available here: ${reason}`,
      where: this.node.label,
      remedy: 'Choose targets behind this node, or export the model in another form.',
    });
  }
}
