/** The kinds of sites, by name. */
import type { Builder } from '../../../src/ops/builder.js';
import type { Site, SiteKind } from '../site.js';
import { attention } from './attention.js';
import { embedding } from './embedding.js';
import type { Kind, OpenSite, Stack, StoredTensor } from './kind.js';
import { linear } from './linear.js';
import { norm } from './norm.js';
import { position } from './position.js';
import { prompt } from './prompt.js';
import { sublayer } from './sublayer.js';

const KINDS: { readonly [K in SiteKind]: Kind<Extract<Site, { kind: K }>> } = {
  linear,
  embedding,
  norm,
  sublayer,
  attention,
  position,
  prompt,
};

/** The entry of a site's kind; the table pairs them by type, which a lookup by `kind` cannot express. */
function kindOf(site: Site): Kind<Site> {
  return KINDS[site.kind] as unknown as Kind<Site>;
}

/** Sizes of a site, as `params` of a method reads them. */
export function dimsOf(site: Site): object {
  return kindOf(site).dims(site);
}

/** Stored tensors of a site by slot. */
export function storedOf(site: Site): Readonly<Record<string, StoredTensor>> {
  return kindOf(site).stored(site);
}

/** Opens a site for a method. */
export function openSite(builder: Builder, site: Site, stack: Stack): OpenSite {
  return kindOf(site).open(builder, site, stack);
}
