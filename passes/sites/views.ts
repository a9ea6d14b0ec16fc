/**
 * What formulas see of each kind of site: its sizes, its values with the features on the last axis whatever axis the op
 * keeps them on, the slots they can replace and the stored tensors they can fold into. `passes/sites/kinds` opens sites.
 */
import type { Value } from '../../src/graph.js';
import type { DType } from '../../src/types.js';
import type { LinearRole } from './site.js';

/** What every site has. */
export interface Dims {
  readonly path: string;
  /** Element type of activations and new parameters. */
  readonly dtype: DType;
}

/** A linear: `y = x w + b`, `w` always [in, out]. */
export interface LinearDims extends Dims {
  readonly inDim: number;
  readonly outDim: number;
  /** Whether there is a bias. */
  readonly bias: boolean;
  readonly role: LinearRole | undefined;
  /** Axes of `x`, where they are known. */
  readonly rank?: number | undefined;
  /** Of a convolution, the sizes of its window and its groups: `inDim` is channels of a group × window. */
  readonly window?: readonly number[] | undefined;
  readonly groups?: number | undefined;
}

/** An embedding: `y = w[ids]`, `w` [vocab, dim]. */
export interface EmbeddingDims extends Dims {
  readonly vocab: number;
  readonly dim: number;
}

/** A normalization: `y = normalize(x)·w + b`, `w` and `b` [dim]. */
export interface NormDims extends Dims {
  readonly dim: number;
  readonly bias: boolean;
}

/** A residual block: `sum = residual + z`, `z` [..., dim] computed from `x` [..., dim]. */
export interface SublayerDims extends Dims {
  readonly role: 'attention' | 'feed-forward';
  readonly dim: number;
  /** Whether a LayerNorm follows the sum. */
  readonly postNorm: boolean;
}

/** Attention of `heads` queries over `keyValueHeads` keys and values of `headDim`. */
export interface AttentionDims extends Dims {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly cross: boolean;
  /** Width of the block's hidden states, where they are known: gates read them. */
  readonly hiddenDim: number | undefined;
}

/** Integer or float positions of the tokens. */
export type PositionDims = Dims;

/** Token embeddings where virtual tokens can stand in front. */
export interface PromptDims extends Dims {
  readonly vocab: number;
  readonly dim: number;
}

/** Sizes of a site, known before any value exists. */
export interface SiteDims {
  readonly linear: LinearDims;
  readonly embedding: EmbeddingDims;
  readonly norm: NormDims;
  readonly sublayer: SublayerDims;
  readonly attention: AttentionDims;
  readonly position: PositionDims;
  readonly prompt: PromptDims;
}

/** A site in a formula. In a stack, the values are those of the site as the methods before left it. */
export interface SiteViews {
  readonly linear: LinearDims & {
    readonly x: Value;
    readonly y: Value;
    readonly w: Value;
    /** Undefined where the linear has no bias. */
    readonly b: Value | undefined;
  };
  readonly embedding: EmbeddingDims & { readonly ids: Value; readonly y: Value; readonly w: Value };
  readonly norm: NormDims & {
    readonly x: Value;
    readonly y: Value;
    readonly w: Value;
    readonly b: Value | undefined;
  };
  readonly sublayer: SublayerDims & {
    /** What the block reads. */
    readonly x: Value;
    /** What the block adds to the residual stream. */
    readonly z: Value;
    readonly residual: Value;
    /** The normalization behind the sum, applied to another value; the identity in pre-norm models. */
    normalize(value: Value): Value;
  };
  readonly attention: AttentionDims & {
    /** Hidden states that the projections read, [batch, time, ...]; undefined where they are not found. */
    readonly x: Value | undefined;
  };
  readonly position: PositionDims & { readonly positions: Value };
  readonly prompt: PromptDims & { readonly y: Value; readonly w: Value };
}

/**
 * What `attach` may replace.
 * `keys`, `values`: more of them in front of the attention's own, [keyValueHeads, length, headDim], or with a batch axis
 * before. `prompt`: virtual tokens [length, dim] in front of the sequence.
 */
export interface SiteSlots {
  readonly linear: 'x' | 'y' | 'w' | 'b';
  readonly embedding: 'y' | 'w';
  readonly norm: 'y' | 'w' | 'b';
  readonly sublayer: 'z';
  readonly attention: 'keys' | 'values';
  readonly position: 'positions';
  readonly prompt: 'prompt';
}

/** Stored tensors a fold reads and writes. */
export interface StoredSlots {
  readonly linear: 'w' | 'b';
  readonly embedding: 'w';
  readonly norm: 'w' | 'b';
  readonly sublayer: never;
  readonly attention: never;
  readonly position: never;
  readonly prompt: 'w';
}

/** Stored tensors by slot; `b` is undefined where the module has none. */
export interface StoredValues {
  readonly w: Value;
  readonly b?: Value | undefined;
}

export type Stored<Kind extends keyof StoredSlots> = [StoredSlots[Kind]] extends [never]
  ? Readonly<Record<never, Value>>
  : Omit<StoredValues, 'b'> & ('b' extends StoredSlots[Kind] ? Pick<StoredValues, 'b'> : unknown);
