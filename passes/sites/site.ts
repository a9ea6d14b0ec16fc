/**
 * Sites: typed views of places in a graph where a method can attach. Layout lives here and only here: a linear site's
 * weight is always seen as [in, out], whatever op and transposition store it.
 */
import type { Graph, Node, Value } from '../../src/graph.js';
import type { DType } from '../../src/types.js';

/** How a stored initializer maps to the matrix a method reasons about. */
export interface WeightView {
  /** The initializer (or the output of a Constant node) that holds the numbers. */
  readonly value: Value;
  /** True when the stored matrix is [out, in] (Gemm transB=1, Transpose-fed MatMul, 1×1 Conv). */
  readonly transposed: boolean;
  /** Range of output columns of the [in, out] view, for one projection of a packed weight. */
  readonly columns?: { readonly start: number; readonly end: number };
  /** Factor the op multiplies the weight by (Gemm alpha); deltas on the stored weight are divided by it. */
  readonly scale: number;
  /** The value the consuming op reads: `value` itself, or the end of a Transpose/Reshape/Identity/Cast chain. */
  readonly consumed: Value;
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
  readonly dtype: DType;
}

/** `y = x W + b` with `x` [..., in], `W` [in, out], `b` [out]. */
export interface LinearSite extends SiteBase {
  readonly kind: 'linear';
  /** The MatMul, Gemm, Conv or fused node. */
  readonly node: Node;
  readonly x: Value;
  /** The value an additive delta can join: the output with the bias added where the graph has such a value. */
  readonly y: Value;
  readonly weight: WeightView;
  readonly bias?: {
    readonly value: Value;
    readonly columns?: { readonly start: number; readonly end: number };
  };
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
  readonly y: Value;
  readonly weight: WeightView;
  readonly vocab: number;
  readonly dim: number;
}

export type Site = LinearSite | EmbeddingSite;
export type SiteKind = Site['kind'];
