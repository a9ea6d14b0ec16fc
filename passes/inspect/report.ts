/** What `inspect` says about a model: plain data, JSON-serialisable as it is. */
import type { DType, Shape } from '../../src/types.js';
import type { PathGuess, SiteKind, WeightStorage } from '../sites/site.js';

export interface ValueInfo {
  readonly name: string;
  /** As people read it: `int64[batch, 128]`. */
  readonly type: string;
  readonly dtype: DType | null;
  readonly shape: Shape | null;
}

export interface ModelInfo {
  readonly path: string | null;
  readonly irVersion: number;
  /** Opset versions by domain; 'ai.onnx' is the standard one. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly producer: string;
  readonly exporter: { readonly id: string; readonly title: string };
  readonly nodes: number;
  /** Graphs nested in control-flow nodes. */
  readonly nestedGraphs: number;
  readonly localFunctions: number;
}

export interface SiteInfo {
  readonly path: string;
  readonly kind: SiteKind;
  readonly op: string;
  readonly node: string;
  /** `in` × `out`, or vocabulary × dimension. */
  readonly rows: number;
  readonly columns: number;
  readonly dtype: DType;
  readonly storedDtype: DType | null;
  readonly layout: '[in, out]' | '[out, in]' | '[vocab, dim]' | '[dim, vocab]';
  readonly storage: WeightStorage;
  readonly weight: string;
  readonly bias: string | null;
  /** `output`: an additive delta can join; `weight`: only the weight itself can be replaced. */
  readonly tap: 'output' | 'weight';
  readonly confidence: number;
  readonly source: string;
  readonly guesses: readonly PathGuess[];
  /** Guesses that are trusted on their own and contradict the path. */
  readonly conflicts: readonly string[];
  readonly packedIn: string | null;
  readonly callOf: string | null;
  /** Paths of other sites, or labels of other nodes, that read the same stored weight. */
  readonly sharedWith: readonly string[];
  /** Whether `all-linear` would leave it out. */
  readonly head: boolean;
}

export interface ParameterGroup {
  readonly dtype: DType;
  readonly tensors: number;
  readonly elements: number;
  readonly bytes: number;
}

export interface ParameterInfo {
  readonly tensors: number;
  readonly elements: number;
  readonly bytes: number;
  readonly byDtype: readonly ParameterGroup[];
}

/**
 * `tied`: a table and a linear, or several modules, read one weight. `reused`: one module is called several times.
 * `deduplicated`: a vector of several modules was merged because the values were equal. `untied`: a matrix has the
 * dims of an embedding table transposed, so it may be a folded copy of it.
 */
export type SharingKind = 'tied' | 'reused' | 'deduplicated' | 'untied';

export interface SharedWeight {
  readonly weight: string;
  readonly dims: readonly number[];
  readonly kind: SharingKind;
  readonly readers: readonly string[];
}

export interface OperatorInfo {
  readonly op: string;
  readonly count: number;
  /** Nodes between some site and an output of the model: where gradients would flow. */
  readonly onTrainablePath: number;
  /** Whether a gradient rule exists; null when nobody asked. */
  readonly gradient: boolean | null;
}

export type Severity = 'info' | 'warning' | 'error';

export interface Hazard {
  readonly code: string;
  readonly severity: Severity;
  readonly message: string;
  /** Up to ten places. */
  readonly where: readonly string[];
  /** How many places there are. */
  readonly count: number;
}

export interface InspectReport {
  readonly model: ModelInfo;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly sites: readonly SiteInfo[];
  readonly parameters: ParameterInfo;
  readonly shared: readonly SharedWeight[];
  readonly operators: readonly OperatorInfo[];
  readonly hazards: readonly Hazard[];
}
