/**
 * Shape arithmetic for gradients: constants wherever dimensions are known, values computed at run time elsewhere.
 * Run-time dimensions are read from graph inputs with the same symbol where there are any, so that no activation is
 * kept alive for its shape alone.
 */
import { intsAttribute } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import type { Graph, Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Builder } from '../../src/ops/builder.js';
import type { Dim, DType, Shape } from '../../src/types.js';
import { shapeOf } from '../../src/value-type.js';

/** A dimension as a literal, or as an int64[1] value. */
export type Size = number | Value;

export class Shapes {
  readonly b: Builder;
  readonly #graph: Graph;
  readonly #sources = new Map<string, { value: Value; axis: number }>();
  readonly #shapes = new Map<Value, Value>();
  readonly #sizes = new Map<string, Value>();
  readonly #vectors = new Map<string, Value>();
  readonly #flat = new Map<Value, Value>();
  readonly #transposed = new Map<Value, Map<string, Value>>();

  constructor(model: Model, b: Builder) {
    this.b = b;
    this.#graph = model.graph;
    for (const value of model.graph.inputs) {
      if (value.type?.kind !== 'tensor') continue;
      value.type.shape?.forEach((dim, axis) => {
        if (typeof dim === 'string' && !this.#sources.has(dim)) this.#sources.set(dim, { value, axis });
      });
    }
  }

  dtype(value: Value): DType {
    if (value.type?.kind === 'tensor') return value.type.dtype;
    return fail('E_INVALID_GRAPH', {
      message: 'The value has no tensor type',
      where: value.label,
      remedy: 'Run shape inference before differentiating.',
    });
  }

  /** Dimensions, or undefined when even the rank is unknown. */
  dims(value: Value): Shape | undefined {
    return shapeOf(value);
  }

  rank(value: Value): number {
    return (
      this.dims(value)?.length ??
      fail('E_UNSUPPORTED', {
        message: 'The gradient needs the rank of this value, which shape inference could not find',
        where: value.label,
        remedy: 'Give the graph inputs shapes (symbolic dimensions are fine).',
      })
    );
  }

  /** Axis counted from the front. */
  axis(value: Value, axis: number): number {
    return axis < 0 ? axis + this.rank(value) : axis;
  }

  dim(value: Value, axis: number): Dim {
    return this.dims(value)?.[axis] ?? null;
  }

  /** Size of one axis. */
  size(value: Value, axis: number): Size {
    const dim = this.dim(value, axis);
    if (typeof dim === 'number') return dim;
    const source = (typeof dim === 'string' ? this.#sources.get(dim) : undefined) ?? { value, axis };
    const key = `${source.value.id}:${source.axis}`;
    let size = this.#sizes.get(key);
    if (size === undefined) {
      size = this.b.op.Gather(this.#shapeOf(source.value), [source.axis], { axis: 0 });
      this.#sizes.set(key, size);
    }
    return size;
  }

  sizes(value: Value): Size[] {
    return Array.from({ length: this.rank(value) }, (_, axis) => this.size(value, axis));
  }

  /** int64[n] of sizes: a constant when all are numbers. */
  vector(sizes: readonly Size[]): Value {
    const key = sizes.map((size) => (typeof size === 'number' ? size : `v${size.id}`)).join(',');
    let vector = this.#vectors.get(key);
    if (vector === undefined) {
      vector = this.#concat(sizes);
      this.#vectors.set(key, vector);
    }
    return vector;
  }

  #concat(sizes: readonly Size[]): Value {
    const parts: Value[] = [];
    let run: number[] = [];
    const flush = () => {
      if (run.length > 0) parts.push(this.b.ints(run));
      run = [];
    };
    for (const size of sizes) {
      if (typeof size === 'number') run.push(size);
      else {
        flush();
        parts.push(size);
      }
    }
    flush();
    if (parts.length === 0) return this.b.ints([]);
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : this.b.op.Concat(parts, { axis: 0 });
  }

  /** The shape of a value as int64[rank]; works without a known rank. */
  shape(value: Value): Value {
    const dims = this.dims(value);
    return dims === undefined ? this.#shapeOf(value) : this.vector(this.sizes(value));
  }

  #shapeOf(value: Value): Value {
    let shape = this.#shapes.get(value);
    if (shape === undefined) {
      shape = this.b.op.Shape(value);
      this.#shapes.set(value, shape);
    }
    return shape;
  }

  /** `value` with the shape of `like` (same number of elements). */
  reshapeLike(value: Value, like: Value): Value {
    const to = this.dims(like);
    const from = this.dims(value);
    if (to === undefined) return this.b.op.Reshape(this.#unshaped(value), this.#shapeOf(like));
    if (from !== undefined && sameShape(from, to)) return value;
    const source = this.#unshaped(value);
    const direct = this.dims(source);
    if (direct !== undefined && sameShape(direct, to)) return source;
    const target = staticTarget(direct, to);
    return this.b.op.Reshape(
      source,
      target === undefined ? this.vector(this.sizes(like)) : this.b.ints(target),
    );
  }

  /** Reshape to explicit sizes; one of them may be -1. */
  reshape(value: Value, sizes: readonly Size[]): Value {
    const shape = sizes.map((size) => (typeof size === 'number' ? size : null));
    const dims = this.dims(value);
    if (dims !== undefined && sameShape(dims, shape)) return value;
    const source = this.#unshaped(value);
    const unknown = sizes.filter((size) => typeof size !== 'number');
    const target =
      unknown.length === 1 && !sizes.includes(-1) && !sizes.includes(0)
        ? this.b.ints(shape.map((size) => size ?? -1))
        : this.vector(sizes);
    return this.b.op.Reshape(source, target);
  }

  /** What a chain of shape changes started from: a second Reshape replaces the first instead of following it. */
  #unshaped(value: Value): Value {
    let source = value;
    for (let node = source.producer; node !== undefined && isReshaping(node); node = source.producer)
      source = node.input(0);
    return source;
  }

  /** The [rows, last] view of a value; sees through reshapes that only split the rows. */
  flat2d(value: Value): Value {
    const rank = this.rank(value);
    if (rank === 2) return value;
    let flat = this.#flat.get(value);
    if (flat === undefined) {
      flat = this.#unsplit(value) ?? this.reshape(value, [-1, this.size(value, rank - 1)]);
      this.#flat.set(value, flat);
    }
    return flat;
  }

  #unsplit(value: Value): Value | undefined {
    const last = this.dim(value, this.rank(value) - 1);
    let source: Value | null | undefined = value;
    while (source?.producer?.op === 'Reshape' && source.producer.domain === '') {
      source = source.producer.inputs[0];
      const dims: Shape | undefined = source == null ? undefined : this.dims(source);
      if (source != null && dims?.length === 2 && typeof last === 'number' && dims[1] === last) return source;
    }
    return undefined;
  }

  /** Transpose, composed with the transposes that made the value; no node where they cancel. */
  transpose(value: Value, perm: readonly number[]): Value {
    const { source, total } = this.#untransposed(value, perm);
    return this.#known(source, total) ?? this.#transposeOf(source, total);
  }

  /**
   * Swaps the last two axes. Unless the result is at hand, the swap is of the value itself and not of what it was
   * transposed from: runtimes fuse exactly this Transpose into the product that reads it.
   */
  swapLast(value: Value): Value {
    const n = this.rank(value);
    const perm = Array.from({ length: n }, (_, i) => i);
    const swap = [...perm.slice(0, n - 2), n - 1, n - 2];
    const { source, total } = this.#untransposed(value, swap);
    return this.#known(source, total) ?? this.#transposeOf(value, swap);
  }

  #untransposed(value: Value, perm: readonly number[]): { source: Value; total: number[] } {
    let source = value;
    let total = [...perm];
    let node: Node | undefined = source.producer;
    while (node?.op === 'Transpose' && node.domain === '') {
      const input = node.input(0);
      const own = permOf(node, this.rank(input));
      total = total.map((axis) => own[axis] ?? 0);
      source = input;
      node = source.producer;
    }
    return { source, total };
  }

  #transposeOf(value: Value, perm: readonly number[]): Value {
    const made = this.b.op.Transpose(value, { perm });
    this.#transposed.set(value, (this.#transposed.get(value) ?? new Map()).set(perm.join(','), made));
    return made;
  }

  /** The transposed value where it exists: made here before, or by the model. */
  #known(source: Value, perm: readonly number[]): Value | undefined {
    if (perm.every((axis, i) => axis === i)) return source;
    const made = this.#transposed.get(source)?.get(perm.join(','));
    if (made !== undefined) return made;
    for (const user of source.users) {
      if (user.op !== 'Transpose' || user.domain !== '' || user.graph !== this.#graph) continue;
      const own = permOf(user, perm.length);
      if (own.every((axis, i) => axis === perm[i])) return user.output();
    }
    return undefined;
  }

  /** Zeros with the shape and dtype of `like`. */
  zerosLike(like: Value): Value {
    return this.b.op.Expand(this.b.scalar(0, this.dtype(like)), this.shape(like));
  }

  expandLike(value: Value, like: Value): Value {
    const from = this.dims(value);
    const to = this.dims(like);
    if (from !== undefined && to !== undefined && sameShape(from, to)) return value;
    return this.b.op.Expand(value, this.shape(like));
  }

  /**
   * Sums `gradient` over the axes along which `like` was broadcast to the gradient's shape. Axes that are decided
   * statically are; the rest is decided at run time: every axis where `like` has size 1 is summed, which changes nothing
   * where the gradient has size 1 as well.
   */
  unbroadcast(gradient: Value, like: Value): Value {
    const from = this.dims(gradient);
    const to = this.dims(like);
    if (from === undefined || to === undefined) return this.#unbroadcastAtRunTime(gradient, like);
    if (sameShape(from, to)) return gradient;
    const lead = from.length - to.length;
    const axes = Array.from({ length: lead }, (_, i) => i);
    let undecided = false;
    to.forEach((dim, i) => {
      const other = from[lead + i] ?? null;
      if (dim === 1 && other !== 1) axes.push(lead + i);
      else if (typeof dim !== 'number' && other !== 1 && (dim === null || dim !== other)) undecided = true;
    });
    if (undecided) return this.#unbroadcastAtRunTime(gradient, like);
    if (axes.length === 0) return this.reshapeLike(gradient, like);
    const onlyLeading = axes.length === lead;
    const sum = this.b.op.ReduceSum(gradient, axes, { keepdims: onlyLeading ? 0 : 1 });
    return onlyLeading ? sum : this.reshapeLike(sum, like);
  }

  #unbroadcastAtRunTime(gradient: Value, like: Value): Value {
    const { op } = this.b;
    const shape = this.#shapeOf(like);
    const lead = op.Sub(op.Shape(this.#shapeOf(gradient)), op.Shape(shape));
    const padded = op.Concat([op.Expand(this.b.ints([1]), lead), shape], { axis: 0 });
    const axes = op.Squeeze(op.NonZero(op.Equal(padded, this.b.ints([1]))), [0]);
    const sum = op.ReduceSum(gradient, axes, { keepdims: 1, noop_with_empty_axes: 1 });
    return this.dims(like) === undefined ? op.Reshape(sum, shape) : this.reshapeLike(sum, like);
  }
}

const RESHAPING: ReadonlySet<string> = new Set(['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten']);

function isReshaping(node: Node): boolean {
  return node.domain === '' && RESHAPING.has(node.op);
}

/** Both shapes are equal for every binding of their symbols. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim !== null && dim === b[i]);
}

/** A constant Reshape target: numbers, 0 where a symbol stays in place, -1 for one dimension that follows. */
function staticTarget(from: Shape | undefined, to: Shape): number[] | undefined {
  let inferred = 0;
  const target = to.map((dim, i) => {
    if (typeof dim === 'number') return dim;
    if (typeof dim === 'string' && from?.[i] === dim) return 0;
    inferred++;
    return -1;
  });
  // A size of 0 would be read as "copy", so such shapes go through the general path.
  return inferred > 1 || to.includes(0) ? undefined : target;
}

/** The permutation of a Transpose node; reversed axes by default. */
export function permOf(node: Node, rank: number): number[] {
  return intsAttribute(node, 'perm') ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
}
