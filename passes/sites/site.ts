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
  /** The matrix is slice `index` of `count` along the first axis of both tensors: one of several experts in one. */
  readonly slice?: { readonly index: number; readonly count: number };
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

/** What a linear is for, read off the structure around it; absent where nothing says so. */
export type LinearRole =
  | 'query'
  | 'key'
  | 'value'
  /** Query, key and value side by side. */
  | 'packed'
  | 'attention-output'
  /** Into the feed-forward block: before its activation, or the factor that is multiplied with it. */
  | 'up'
  | 'gate'
  /** Out of the feed-forward block. */
  | 'down';

/** A stored vector: a bias, or the gain or offset of a normalization. */
export interface SiteBias {
  readonly value: Value;
  /** The node that reads the vector, and at which input: where another vector is wired in. */
  readonly node: Node;
  readonly input: number;
  /** Nodes between `value` and that input, in order of execution. */
  readonly chain: readonly Node[];
  readonly columns?: ColumnRange;
  /** Factor the op multiplies the bias by (Gemm beta). */
  readonly scale: number;
  /** Whether the site's `y` holds the bias already; false where a fused op (SkipLayerNormalization, …) adds it later. */
  readonly included: boolean;
}

/** One of several column ranges, side by side, of a value that `node` reads at input `index`. */
export interface PackedRange {
  readonly node: Node;
  readonly index: number;
  /** Columns of every range, in order, and which of them is meant. */
  readonly widths: readonly number[];
  readonly part: number;
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
  /** Where `y` is of a packed linear and a fused op takes it apart inside: the site's own part of what the op reads. */
  readonly range?: PackedRange;
  readonly weight: WeightView;
  readonly bias?: SiteBias;
  readonly inDim: number;
  readonly outDim: number;
  /**
   * True for a convolution whose matrix multiplies patches, `in` being channels × window. They are no values of the
   * graph, so `x` is what they are cut from and there is no `y`. `all-linear` leaves these out, as PEFT does.
   */
  readonly patches?: boolean;
  /** Sizes of the window of a convolution, and its groups; `in` is channels of a group × window. */
  readonly window?: readonly number[];
  readonly groups?: number;
  /** Path of the packed linear this one is a column range of; absent for whole weights. Targeted only by its own name. */
  readonly packedIn?: string;
  readonly role?: LinearRole;
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

/** `y = normalize(x)·gain + offset` over the last axis: LayerNorm, or RMSNorm without offset. */
export interface NormSite extends SiteBase {
  readonly kind: 'norm';
  /** The node whose output is `y`. */
  readonly node: Node;
  readonly x: Value;
  readonly y: Value;
  readonly gain: SiteBias;
  readonly offset?: SiteBias;
  readonly dim: number;
  /**
   * True where the module multiplies by 1 + gain (Gemma): the stored numbers are those of the gain less one. Nothing
   * changes for whoever trains or adds to them.
   */
  readonly offsetGain: boolean;
}

/** A place where a residual stream takes in what a block computed: `sum = residual + z`. */
export interface SublayerSite extends SiteBase {
  readonly kind: 'sublayer';
  readonly role: 'attention' | 'feed-forward';
  /** The Add (or SkipLayerNormalization) that joins `z`, which it reads at input `input`; the residual at `residual`. */
  readonly node: Node;
  readonly input: number;
  readonly residual: number;
  /**
   * Where the stream itself is read, when two blocks are added to each other before they join it (parallel residuals:
   * `stream + (attention + feed-forward)`). Input `residual` of `node` is then what the other block computed.
   */
  readonly stream?: { readonly node: Node; readonly index: number };
  /** The first node of the block that reads its input, and at which input: query's or up's linear. */
  readonly entry: { readonly node: Node; readonly index: number };
  /** Nodes of the LayerNorm that follows the sum, in order of execution: post-norm models. Empty for pre-norm. */
  readonly norm: readonly Node[];
  readonly dim: number;
}

/** `softmax(scale·q kᵀ + mask) v` written out in standard ops. */
export interface AttentionSite extends SiteBase {
  readonly kind: 'attention';
  readonly node: Node;
  /** What the score product reads: [batch, heads, time, head], or [batch·heads, time, head]. */
  readonly query: { readonly node: Node; readonly index: number };
  /** The Softmax over [batch, heads, time, keys], its scores at input 0; and the product of its output with the values. */
  readonly softmax: Node;
  readonly product: { readonly node: Node; readonly index: number };
  /** Factor between q·kᵀ and the scores before the mask, those inside q's and k's own chains left out. */
  readonly scale: number;
  /** Soft cap c: what the mask is added to is c·tanh(scores / c). Absent where there is none. */
  readonly cap?: number;
  /** Factor that the graph multiplies the keys by before the product (1 where it does not). */
  readonly keyScale: number;
  readonly heads: number;
  /** Heads that keys and values have before they are repeated for grouped queries. */
  readonly keyValueHeads: number;
  readonly headDim: number;
  /** True where the keys come from another sequence. */
  readonly cross: boolean;
  /** What query's linear reads, where it is found: the hidden states of the block, [batch, time, dim]. */
  readonly hidden?: { readonly node: Node; readonly index: number };
}

/** Where the positions of tokens enter: ids of a position embedding, or the angles of a rotary one. */
export interface PositionSite extends SiteBase {
  readonly kind: 'position';
  readonly node: Node;
  readonly input: number;
}

/** The token embedding with everything that has a token axis: where virtual tokens can be put in front. */
export interface PromptSite extends SiteBase {
  readonly kind: 'prompt';
  readonly node: Node;
  readonly y: Value;
  readonly weight: WeightView;
  readonly vocab: number;
  readonly dim: number;
  /** Graph inputs with a token axis [batch, time], and what virtual tokens are there. */
  readonly inputs: readonly { readonly value: Value; readonly fill: 'token' | 'one' | 'zero' | 'position' }[];
  /** Graph outputs that have one row per token, with that axis. */
  readonly outputs: readonly { readonly value: Value; readonly axis: number }[];
}

export type Site =
  | LinearSite
  | EmbeddingSite
  | NormSite
  | SublayerSite
  | AttentionSite
  | PositionSite
  | PromptSite;
export type SiteKind = Site['kind'];

/** Sites with a weight matrix of their own. */
export type WeightSite = LinearSite | EmbeddingSite;
