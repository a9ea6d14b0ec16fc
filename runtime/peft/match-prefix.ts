/** The same names below another beginning: `model.layers.0…` of a causal model in the export of its body, `layers.0…`. */

import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import type { Placement, Strategy, Wanted } from './match.js';

export const byPrefix: Strategy = (wanted, sites) => {
  const [first] = wanted as readonly [Wanted, ...Wanted[]];
  const ways = new Map<string, Placement>();
  const parts = first.path.split('.');
  for (let dropped = 0; dropped < parts.length; dropped++) {
    const from = parts.slice(0, dropped).join('.');
    const rest = parts.slice(dropped).join('.');
    for (const site of sites) {
      const path = modulePath(site);
      if (path !== rest && !path.endsWith(`.${rest}`)) continue;
      const to = path.slice(0, Math.max(0, path.length - rest.length - 1));
      const placement = replaced(wanted, sites, from, to);
      if (placement !== undefined)
        ways.set([...placement].map(([path, site]) => `${path} ${modulePath(site)}`).join(), placement);
    }
  }
  if (ways.size <= 1) return [...ways.values()][0];
  return { ambiguous: `Its paths fit below ${ways.size} different modules of the model` };
};

/** All modules with beginning `from` replaced by `to`; those elsewhere under their own names. */
function replaced(
  wanted: readonly Wanted[],
  sites: readonly Site[],
  from: string,
  to: string,
): Placement | undefined {
  const placement = new Map<string, Site>();
  const taken = new Set<Site>();
  for (const module of wanted) {
    const inside = from === '' || module.path.startsWith(`${from}.`);
    const rest = from === '' ? module.path : module.path.slice(from.length + 1);
    const path = !inside ? module.path : to === '' ? rest : `${to}.${rest}`;
    const site = sites.find((one) => modulePath(one) === path && module.fits(one));
    if (site === undefined || taken.has(site)) return undefined;
    taken.add(site);
    placement.set(module.path, site);
  }
  return placement;
}
