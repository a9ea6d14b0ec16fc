/** A look at the selected weights before sizes are known: how many weights a mask keeps, which biases are dead. */
import type { DType } from '../../../src/types.js';
import type { SiteKind } from '../../sites/site.js';

/** A selected site, with its stored tensors as streams of row-major blocks. */
export interface SurveyedSite {
  readonly path: string;
  readonly kind: SiteKind;
  readonly dims: object;
  readonly slots: readonly ('w' | 'b')[];
  /** Numbers of a stored tensor in float32 as the formulas see them, block by block, in the order of the file. */
  read(slot: 'w' | 'b'): AsyncIterable<Float32Array>;
}

/** A tensor of a file, read when asked for. */
export interface SurveyedTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  read(): Promise<Float64Array>;
}

export interface SurveyContext {
  /** Tensors of a safetensors file that the configuration names. */
  tensors(file: string): ReadonlyMap<string, SurveyedTensor>;
}

/** What a survey knows of a site. */
export interface Found {
  /** Entries that join the site's configuration. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** Numbers too many for a configuration: the transforms of derived values are given them. */
  readonly arrays?: Readonly<Record<string, BigInt64Array>>;
}

/** What was found, or why the site is left out. */
export type SurveyResult = Found | { readonly skip: string };

/** By path of the site; sites that are absent keep their configuration. */
export type Survey = (
  sites: readonly SurveyedSite[],
  config: Record<string, unknown>,
  context: SurveyContext,
) => Promise<ReadonlyMap<string, SurveyResult>>;
