/**
 * Dropout for training graphs. Adapters carry an ordinary `Dropout` node, a no-op in inference; the step target turns
 * it into arithmetic on a seed input, so that masks need no random op, are the same on every runtime, and an exact
 * resume is a matter of feeding the same seed.
 *
 * Masks. Every axis but the last gets a hash chain over its indices, which ends in one 32-bit number r per row; the
 * last axis gets one number c per column; both are functions of the seed. Site k drops the element where
 * (r + α_k)·(c + β_k) mod 2³² falls below p·2³², with α_k, β_k fixed per site. The product of two independent 32-bit
 * numbers is uniform, and pairs of elements (same row, same column, other rows, sites or seeds) are independent up to
 * 2⁻³² coincidences, which is what means, variances and covariances depend on. It costs one integer multiplication and
 * one comparison per element; hashing every element would cost ten times that.
 * int32 arithmetic wraps on all runtimes; only ops that exist on CPU, CUDA and WebGPU are used.
 */
import { fail } from '../src/errors.js';
import type { Node, Value } from '../src/graph.js';
import { tensorOf } from '../src/literals.js';
import type { Model } from '../src/model.js';
import { Builder } from '../src/ops/builder.js';
import type { Tensor } from '../src/tensor.js';
import { type Dim, formatType } from '../src/types.js';
import { applyEdit } from './edit.js';
import { scalarOf } from './grad/scalars.js';

/** Node metadata that marks a Dropout as the adapter's. */
const MARK = 'peft_compile.dropout';

/** Dropout on the way into an adapter: identity in inference graphs, active in training graphs. `p` in [0, 1). */
export function adapterDropout(b: Builder, x: Value, p: number): Value {
  if (p === 0) return x;
  const y = b.op.Dropout(x, p);
  y.producer?.metadata.set(MARK, 'adapter');
  return y;
}

/** The adapter's Dropout nodes of the main graph, in execution order. */
export function adapterDropouts(model: Model): Node[] {
  return [...model.graph.nodes()].filter((node) => node.op === 'Dropout' && node.metadata.has(MARK));
}

/** Removes the adapter's Dropout nodes; they are identities in inference. */
export function stripDropout(model: Model): void {
  for (const node of adapterDropouts(model))
    applyEdit({
      label: `strip ${node.label}`,
      graph: model.graph,
      redirect: [{ from: node.output(), to: node.input(0) }],
      remove: [node],
    });
}

/**
 * Makes the adapter's Dropout nodes real. `seed` is an int32 scalar that differs from one forward pass to the next.
 * `p` overrides the probability that the nodes carry.
 */
export function lowerDropout(model: Model, seed: Value, p?: number): void {
  let masks: DropoutMasks | undefined;
  let before = 0;
  for (const [salt, node] of adapterDropouts(model).entries()) {
    const probability = p ?? probabilityOf(node);
    const b: Builder = new Builder(model, { provenance: 'dropout' });
    masks = masks === undefined ? new DropoutMasks(b, seed) : masks.in(b);
    const y = probability === 0 ? node.input(0) : masks.apply(node.input(0), probability, salt);
    before++;
    applyEdit({
      label: `dropout ${before} at ${node.label}`,
      graph: model.graph,
      add: { nodes: b.nodes, at: { before: node } },
      addInitializers: b.initializers,
      redirect: [{ from: node.output(), to: y }],
      remove: [node],
    });
  }
}

/** Probability of a Dropout node in any opset: attribute before 12, constant input since; 0.5 where both are absent. */
export function probabilityOf(node: Node): number {
  const attribute = node.attributes.get('ratio');
  if (attribute?.type === 'float') return attribute.value;
  const ratio = node.inputs[1];
  if (ratio === null || ratio === undefined) return 0.5;
  return (
    scalarOf(ratio) ??
    fail('E_UNSUPPORTED', {
      message: 'The probability of this Dropout is not a constant',
      where: node.label,
    })
  );
}

/** Applies dropout to values under one seed; hashes of rows and columns are shared between values of equal shape. */
export class DropoutMasks {
  readonly #b: Builder;
  readonly #seed: Value;
  readonly #shared: Map<string, Value>;

  /** `seed`: int32 scalar. */
  constructor(b: Builder, seed: Value, shared: Map<string, Value> = new Map()) {
    this.#b = b;
    this.#seed = seed;
    this.#shared = shared;
  }

  /** The same masks, built on with another builder whose nodes come later in the graph. */
  in(b: Builder): DropoutMasks {
    return new DropoutMasks(b, this.#seed, this.#shared);
  }

  /** `x` with elements zeroed with probability `p` and the rest divided by 1 − p. `salt` numbers the site. */
  apply(x: Value, p: number, salt: number): Value {
    if (!(p >= 0 && p < 1))
      fail('E_USAGE', { message: `Dropout probability ${p} is not in [0, 1)`, where: x.label });
    const type = x.type;
    if (type?.kind !== 'tensor' || type.shape === null || type.shape.length === 0)
      return fail('E_TYPE', {
        message: `Dropout needs a tensor of known rank, not ${formatType(type)}`,
        where: x.label,
      });
    const { op } = this.#b;
    const { shape, dtype } = type;
    const row = op.Add(this.#rows(x, shape), hostHash(2 * salt));
    const column = op.Add(this.#columns(x, shape), hostHash(2 * salt + 1));
    const threshold = Math.floor(p * 2 ** 32) - 2 ** 31;
    const kept = op.GreaterOrEqual(op.Mul(row, column), threshold);
    const factor = op.Where(kept, this.#b.scalar(1 / (1 - p), dtype), this.#b.scalar(0, dtype));
    // Ranges over symbolic axes lose the symbols; a Reshape to the shape of x gives them back and moves no data.
    const known = shape.every((d) => typeof d === 'number');
    return op.Mul(x, known ? factor : op.Reshape(factor, op.Shape(x)));
  }

  /** One number per row, shape [d₀, …, 1]. */
  #rows(x: Value, shape: readonly Dim[]): Value {
    return this.#once(`rows ${shape.slice(0, -1).join(',')}`, shape.slice(0, -1), () => {
      const { op } = this.#b;
      let hash = this.#mix(op.Mul(this.#seed, 0x2c1b3c6d));
      for (let axis = 0; axis < shape.length - 1; axis++)
        hash = this.#mix(op.Add(hash, this.#counters(x, shape, axis)));
      return hash;
    });
  }

  /** One number per column, shape [d]. */
  #columns(x: Value, shape: readonly Dim[]): Value {
    const last = shape.length - 1;
    return this.#once(`columns ${shape[last]}`, [shape[last] ?? null], () => {
      const { op } = this.#b;
      const start = this.#mix(op.Add(op.Mul(this.#seed, 0x1b56c4e9), 0x6c8e9cf5));
      return this.#mix(op.Add(start, this.#counters(x, shape, last)));
    });
  }

  /** Indices along an axis times a constant, mod 2³², shaped to broadcast at that axis. */
  #counters(x: Value, shape: readonly Dim[], axis: number): Value {
    const { op } = this.#b;
    const size = shape[axis];
    const trailing = Array.from({ length: shape.length - 1 - axis }, (_, i) => i + 1);
    const line =
      typeof size === 'number'
        ? this.#b.constant(counters(size), 'counters')
        : op.Mul(op.Range(0, op.Cast(op.Gather(op.Shape(x), axis), { to: 'int32' }), 1), STRIDE);
    return trailing.length === 0 ? line : op.Unsqueeze(line, trailing);
  }

  /**
   * Multiply and add-shift rounds, after the multiply and xor-shift finalizers of integer hashes; Div by 2ᵏ stands in for
   * the shift, because shifts of signed integers are not an ONNX op.
   */
  #mix(hash: Value): Value {
    const { op } = this.#b;
    let h = hash;
    for (const [factor, divisor] of ROUNDS) {
      h = op.Mul(h, factor);
      h = op.Add(h, op.Div(h, divisor));
    }
    return h;
  }

  #once(key: string, dims: readonly Dim[], build: () => Value): Value {
    // Sizes that are not known to be equal are not shared.
    if (dims.includes(null)) return build();
    const known = this.#shared.get(key);
    if (known !== undefined) return known;
    const made = build();
    this.#shared.set(key, made);
    return made;
  }
}

/** int32 vector 0, STRIDE, 2·STRIDE, … mod 2³². */
function counters(size: number): Tensor {
  return tensorOf(
    'int32',
    [size],
    Array.from({ length: size }, (_, i) => Math.imul(i, STRIDE)),
  );
}

const STRIDE = 0x297a2d39;

/** Odd multipliers and powers of two. */
const ROUNDS: readonly (readonly [number, number])[] = [
  [0x7feb352d, 1 << 15],
  [0x46ca6b53, 1 << 16],
  [0x68e31da5, 1 << 14],
];

/** A fixed pseudo-random int32 for a counter (the 32-bit finalizer of MurmurHash3, in its published constants). */
function hostHash(counter: number): number {
  let h = Math.imul(counter + 1, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}
