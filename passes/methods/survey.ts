/** A look at the selected weights before sizes are known: how many weights a mask keeps, which biases are dead. */
import type { SiteKind } from '../sites/site.js';

/** A selected site, with its stored tensors as streams of row-major blocks. */
export interface SurveyedSite {
  readonly path: string;
  readonly kind: SiteKind;
  readonly dims: object;
  readonly slots: readonly ('w' | 'b')[];
  /** Numbers of a stored tensor as the formulas see it ([in, out] for a linear's w), block by block. */
  read(slot: 'w' | 'b'): AsyncIterable<Float32Array>;
}

export interface SurveyContext {
  /** Tensors of a safetensors file that the configuration names. */
  tensors(file: string): Promise<ReadonlyMap<string, { dims: readonly number[]; data: Float64Array }>>;
}

/** Entries that join the site's configuration, or why the site is left out. */
export type SurveyResult = { readonly facts: Readonly<Record<string, unknown>> } | { readonly skip: string };

/** By path of the site; sites that are absent keep their configuration. */
export type Survey = (
  sites: readonly SurveyedSite[],
  config: Record<string, unknown>,
  context: SurveyContext,
) => Promise<ReadonlyMap<string, SurveyResult>>;
