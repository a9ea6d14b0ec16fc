/** What the tensors of other tools tell apart and a matrix does not. */
import type { Site } from './site.js';

/** Sizes of the window, where a site is a convolution, as a field. */
export function windowOf(site: Site | undefined): { readonly window?: number[] } {
  return site?.kind === 'linear' && site.window !== undefined ? { window: [...site.window] } : {};
}

/** That, and the number of an expert in its tensor: what a record of an adapter keeps. */
export function formOf(site: Site | undefined): {
  readonly window?: number[];
  readonly slice?: { readonly index: number; readonly count: number };
} {
  const slice = site?.kind === 'linear' ? site.weight.slice : undefined;
  return { ...windowOf(site), ...(slice === undefined ? {} : { slice: { ...slice } }) };
}
