/**
 * Sites: typed views of places in a graph where a method can attach. Layout lives here and only here: a linear site's
 * weight is always seen as [in, out], whatever op and transposition store it.
 */
import type { Graph, Node, Value } from '../../src/graph.js';
import type { DType } from '../../src/types.js';

/** A half-open range of output columns of an [in, out] matrix (or of the entries of its bias). */
export interface ColumnRange {
  readonly start: number;
  readonly end: number;
}

/**
 * What the payload of a weight is.
 * `dense`: the matrix itself, row-major. `dequantized`: integers that a DequantizeLinear turns into the matrix; the
 * weight form may attach at `consumed`, folding needs a requantisation. `packed`: blocks that only the op understands;
 * only the activation form attaches and nothing folds.
 */
export type WeightStorage = 'dense' | 'dequantized' | 'packed';

/** How a stored initializer maps to the matrix a method reasons about. */
export interface WeightView {
  /** The initializer (or the output of a Constant node) that holds the numbers. */
  readonly value: Value;
  /**
   * True when the row-major payload is the [out, in] matrix (Gemm transB=1, Transpose-fed MatMul, 1×1 Conv). Its dims
   * may have more axes than two (`[out, in, 1, 1]`, `[in, heads, head]`); flattened they are [in, out] or [out, in].
   * Embeddings: true when the payload is [dim, vocab].
   */
  readonly transposed: boolean;
  /** Range of output columns of the [in, out] view, for one projection of a packed weight. */
  readonly columns?: ColumnRange;
  /** Factor the op multiplies the weight by (Gemm alpha); deltas on the stored weight are divided by it. */
  readonly scale: number;
  /** The value the consuming op reads: `value` itself, or the end of a Transpose/Reshape/Identity/Cast chain. */
  readonly consumed: Value;
  /** True when `consumed` is the [out, in] matrix (Gemm transB=1, Conv), false when it is [in, out]. */
  readonly consumedTransposed: boolean;
  /** Index of the input of the site's node that reads `consumed`: where the weight form is wired in. */
  readonly input: number;
  /** Nodes between `value` and `consumed`, in order of execution; empty when the op reads the initializer itself. */
  readonly chain: readonly Node[];
  readonly storage: WeightStorage;
}

/** Where a module path came from and how far it can be trusted (0…1). */
export interface PathGuess {
  readonly path: string;
  readonly confidence: number;
  /** e.g. `name_scopes`, `weight name`, `node name`, `bias name`, `structure`, `user map`. */
  readonly source: string;
}

interface SiteBase {
  /** Module path as the training framework names it, e.g. `bert.encoder.layer.0.attention.self.query`. Unique per model. */
  readonly path: string;
  readonly confidence: number;
  readonly source: string;
  /** All guesses, best first. */
  readonly guesses: readonly PathGuess[];
  readonly graph: Graph;
  /** Element type the op computes in: that of new parameters. The payload's own is `weight.value.tensor.dtype`. */
  readonly dtype: DType;
  /**
   * Path of the first call when this one is another call of the same module: same weight value, same kind (a module
   * used twice, or both branches of an If). `path` is then `<callOf>#2`, …; targeting selects all calls together, and
   * a method shares its parameters between them.
   */
  readonly callOf?: string;
}

export interface SiteBias {
  readonly value: Value;
  readonly columns?: ColumnRange;
  /** Factor the op multiplies the bias by (Gemm beta). */
  readonly scale: number;
  /** Whether the site's `y` holds the bias already; false where a fused op (SkipLayerNormalization, …) adds it later. */
  readonly included: boolean;
}

/** `y = x W + b` with `x` [..., in], `W` [in, out], `b` [out]. */
export interface LinearSite extends SiteBase {
  readonly kind: 'linear';
  /** The MatMul, Gemm, Conv or fused node. */
  readonly node: Node;
  readonly x: Value;
  /** Axis of `x` that holds the `in` features: -1, or 0 for Gemm transA, 1 for Conv. */
  readonly xAxis: number;
  /**
   * The value an additive delta can join: the output with the bias added where the graph has such a value. Undefined
   * when the output never exists as a value (a projection inside fused attention): only the weight form can attach.
   */
  readonly y: Value | undefined;
  /** Axis of `y` that holds the `out` features: -1, or 1 for Conv. */
  readonly yAxis: number;
  readonly weight: WeightView;
  readonly bias?: SiteBias;
  readonly inDim: number;
  readonly outDim: number;
  /** Path of the packed linear this one is a column range of; absent for whole weights. Targeted only by its own name. */
  readonly packedIn?: string;
}

/** `y = W[ids]` with `W` [vocab, dim]. */
export interface EmbeddingSite extends SiteBase {
  readonly kind: 'embedding';
  readonly node: Node;
  readonly ids: Value;
  /** Undefined inside fused embedding layers. */
  readonly y: Value | undefined;
  readonly weight: WeightView;
  readonly vocab: number;
  readonly dim: number;
}

export type Site = LinearSite | EmbeddingSite;
export type SiteKind = Site['kind'];
