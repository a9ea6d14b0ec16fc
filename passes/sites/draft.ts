/** Drafts: what detectors find, before module paths are recovered and packed weights are opened. */
import type { Node, Value } from '../../src/graph.js';
import type { ColumnRange, EmbeddingSite, LinearSite, NormSite, PackedRange, WeightView } from './site.js';

type Named = 'path' | 'confidence' | 'source' | 'guesses' | 'callOf' | 'packedIn';

/** One column range of a packed linear, with the values an activation form can use where they exist. */
export interface Part {
  readonly columns: ColumnRange;
  readonly x: Value;
  readonly y: Value | undefined;
  /** Where `y` is the whole output and a fused op takes it apart. */
  readonly range?: PackedRange;
  /** Where `y` holds a bias that the output of the whole does not. */
  readonly biased?: true;
}

export interface LinearDraft extends Omit<LinearSite, Named> {
  /** Present when the weight holds several projections side by side. */
  readonly parts?: readonly Part[];
}

export type EmbeddingDraft = Omit<EmbeddingSite, Named>;

/** `weight` is the gain: its name and readers tell the module as those of a matrix do. */
export interface NormDraft extends Omit<NormSite, Named> {
  readonly weight: WeightView;
}

export type Draft = LinearDraft | EmbeddingDraft | NormDraft;

/**
 * Finds the sites that one family of ops makes. Detectors are listed in `passes/sites/detectors/index.ts`; no other
 * file knows op names.
 */
export interface Detector {
  readonly ops: readonly string[];
  detect(node: Node): readonly Draft[];
}
