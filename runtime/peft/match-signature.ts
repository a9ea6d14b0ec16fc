/**
 * Names in another dialect: `layers.0.self_attn.q_proj` as `layers.0.attn.q_proj`. Two paths agree when they have the
 * same numbers and the same last name. That has to hold for one site per module, in both directions.
 */

import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import type { Strategy } from './match.js';

export const bySignature: Strategy = (wanted, sites) => {
  const bySign = new Map<string, Site[]>();
  for (const site of sites) {
    const sign = signature(modulePath(site));
    bySign.set(sign, [...(bySign.get(sign) ?? []), site]);
  }
  const placement = new Map<string, Site>();
  for (const module of wanted) {
    const candidates = (bySign.get(signature(module.path)) ?? []).filter((site) => module.fits(site));
    if (candidates.length === 0) return undefined;
    if (candidates.length > 1)
      return {
        ambiguous: `'${module.path}' may be ${candidates.map((site) => `'${modulePath(site)}'`).join(' or ')}`,
      };
    placement.set(module.path, candidates[0] as Site);
  }
  return new Set(placement.values()).size === placement.size ? placement : undefined;
};

function signature(path: string): string {
  const parts = path.split('.');
  return [...parts.filter((part) => /^\d+$/.test(part)), parts.at(-1)].join(' ');
}
