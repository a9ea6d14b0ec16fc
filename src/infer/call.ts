/** What a rule sees of a node: types and known contents of inputs, attributes with defaults, and slots to fill. */
import { type Attribute, intOf, numbersOfInts, textOf } from '../attribute.js';
import { fail } from '../errors.js';
import type { Graph, Node, Value } from '../graph.js';
import type { Tensor } from '../tensor.js';
import {
  type Dim,
  type DType,
  dtypeOfCode,
  type Shape,
  type TensorType,
  tensorType,
  type ValueType,
} from '../types.js';
import { type Contents, contentsOf, payloadOf } from './contents.js';

/** Services of the engine that rules for control flow need. */
export interface Engine {
  /** Opset version of a domain where the node stands; undefined when the model does not import it. */
  opset(domain: string): number | undefined;
  /** Infers a subgraph whose inputs get the given types; returns the types of its outputs. */
  enter(graph: Graph, inputs: readonly (ValueType | undefined)[]): (ValueType | undefined)[];
  /** Inside a function body: the attribute that the caller gave under this name. */
  parameter(name: string): Attribute | undefined;
  /** A symbol for a dimension that depends on data; null outside whole-model inference. */
  freshDim(): Dim;
}

export class Call {
  readonly results: (ValueType | undefined)[];

  constructor(
    readonly node: Node,
    readonly engine: Engine,
  ) {
    this.results = node.outputs.map(() => undefined);
  }

  has(index: number): boolean {
    const value = this.node.inputs[index];
    return value !== null && value !== undefined;
  }

  value(index: number): Value | undefined {
    return this.node.inputs[index] ?? undefined;
  }

  valueType(index: number): ValueType | undefined {
    return this.node.inputs[index]?.type;
  }

  type(index: number): TensorType | undefined {
    const type = this.valueType(index);
    return type?.kind === 'tensor' ? type : undefined;
  }

  dtype(index: number): DType | undefined {
    return this.type(index)?.dtype;
  }

  shape(index: number): Shape | null {
    return this.type(index)?.shape ?? null;
  }

  rank(index: number): number | undefined {
    return this.shape(index)?.length;
  }

  contents(index: number): Contents | undefined {
    return contentsOf(this.node.inputs[index]);
  }

  payload(index: number): Tensor | undefined {
    const value = this.value(index);
    return value === undefined ? undefined : payloadOf(value);
  }

  /** Elements of a rank-0 or rank-1 integer input. */
  dims(index: number): readonly Dim[] | undefined {
    const contents = this.contents(index);
    return contents === undefined || contents.dims.length > 1 ? undefined : contents.items;
  }

  /** Elements of a rank-0 or rank-1 input, all of them numbers. */
  numbers(index: number): readonly number[] | undefined {
    const dims = this.dims(index);
    if (dims === undefined) return undefined;
    const out: number[] = [];
    for (const dim of dims) {
      if (typeof dim !== 'number') return undefined;
      out.push(dim);
    }
    return out;
  }

  /** An attribute; inside a function body, what the caller gave. */
  attribute(name: string): Attribute | undefined {
    const attribute = this.node.attributes.get(name);
    return attribute?.type === 'ref' ? this.engine.parameter(attribute.value) : attribute;
  }

  int(name: string): number | undefined;
  int(name: string, fallback: number): number;
  int(name: string, fallback?: number): number | undefined {
    return intOf(this.attribute(name), fallback);
  }

  ints(name: string): readonly number[] | undefined {
    return numbersOfInts(this.attribute(name));
  }

  text(name: string, fallback: string): string {
    return textOf(this.attribute(name), fallback);
  }

  /** A dtype given as a DataType code. */
  dtypeAttribute(name: string): DType | undefined {
    const code = this.int(name);
    return code === undefined || code === 0 ? undefined : dtypeOfCode(code);
  }

  graph(name: string): Graph | undefined {
    const attribute = this.attribute(name);
    return attribute?.type === 'graph' ? attribute.value : undefined;
  }

  /** Axis in [0, rank); `E_TYPE` when out of range. */
  axis(axis: number, rank: number): number {
    const positive = axis < 0 ? axis + rank : axis;
    if (positive < 0 || positive >= Math.max(rank, 1))
      fail('E_TYPE', { message: `Axis ${axis} is out of range for rank ${rank}`, where: this.node.label });
    return positive;
  }

  /**
   * Axes from the attribute `name` or, in newer forms, the input: positive and ascending. `undefined` when they are an
   * input of unknown content; `[]` when absent.
   */
  axes(name: string, index: number, rank: number): readonly number[] | undefined {
    const given = this.ints(name) ?? (this.has(index) ? this.numbers(index) : []);
    return given === undefined ? undefined : given.map((axis) => this.axis(axis, rank)).sort((a, b) => a - b);
  }

  /** Sets the type of an output; without a dtype nothing is known of it. */
  set(index: number, dtype: DType | undefined, shape: Shape | null): void {
    if (dtype !== undefined && index < this.results.length) this.results[index] = tensorType(dtype, shape);
  }

  setType(index: number, type: ValueType | undefined): void {
    if (index < this.results.length) this.results[index] = type;
  }

  /** `E_TYPE` at this node. */
  error(message: string, remedy?: string): never {
    return fail('E_TYPE', { message, where: this.node.label, ...(remedy === undefined ? {} : { remedy }) });
  }
}

/** States the types of a node's outputs from what is known of its inputs. */
export type Rule = (call: Call) => void;

/** Rules by operator name. */
export type Rules = Readonly<Record<string, Rule>>;

/** A shape of `rank` unknown dimensions. */
export function unknownShape(rank: number): Shape {
  return new Array<Dim>(rank).fill(null);
}
