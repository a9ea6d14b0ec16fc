/** Windows of convolutions. */
import type { Site } from './site.js';

/** Sizes of the window, where a site is a convolution, as a field. */
export function windowOf(site: Site | undefined): { readonly window?: number[] } {
  return site?.kind === 'linear' && site.window !== undefined ? { window: [...site.window] } : {};
}
