/** Whether a site takes the tensors of a module, with which settings, or what does not fit. */
import type { PeftConfig, PeftTensor } from '../../passes/methods/contract/peft-format.js';
import { dimsOf } from '../../passes/sites/kinds/index.js';
import { windowOf } from '../../passes/sites/module-form.js';
import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import type { StoredModule } from './keys.js';
import { fitsShape, moduleShape, peftShape } from './layout.js';
import { atModule } from './patterns.js';

export type Fit = { readonly settings: Record<string, unknown> } | { readonly misfit: string };

/** Fits of modules at sites, each worked out once. */
export class Fits {
  readonly #known = new Map<StoredModule, Map<Site, Fit>>();

  constructor(readonly config: PeftConfig) {}

  at(module: StoredModule, site: Site): Fit {
    const known = this.#known.get(module) ?? new Map<Site, Fit>();
    this.#known.set(module, known);
    const fit = known.get(site) ?? this.#fit(module, site);
    known.set(site, fit);
    return fit;
  }

  #fit(module: StoredModule, site: Site): Fit {
    const { format, method } = module.owner;
    const roles = format.tensors[site.kind];
    const rules = method.sites[site.kind];
    const wrong = format.followsTies !== true && !module.kinds.includes(site.kind);
    if (roles === undefined || rules === undefined || wrong)
      return { misfit: `it is of kind ${site.kind}, which has none of these tensors` };
    const shapes = new Map([...module.tensors].map(([key, { dims }]) => [key, dims]));
    const { window } = windowOf(site);
    const settings = format.settings(atModule(this.config, format, module.path), {
      path: modulePath(site),
      name: module.path,
      shapes,
      window,
    });
    const parsed = method.config.safeParse(settings);
    if (!parsed.success) return { misfit: 'its configuration is not one of the method' };
    const refused = rules.refuses?.(dimsOf(site), parsed.data);
    if (refused !== undefined) return { misfit: refused };
    for (const [role, { shape }] of Object.entries(rules.params(dimsOf(site), parsed.data))) {
      const spec = roles[role];
      const dims = spec === undefined ? undefined : shapes.get(spec.key);
      // A missing half is reported later, at the module it belongs to.
      if (spec === undefined || dims === undefined) continue;
      if (!eitherWay(spec, shape, dims, window))
        return {
          misfit: `'${spec.key}' is [${dims.join(', ')}] and it takes [${moduleShape(spec, shape, window).join(', ')}]`,
        };
    }
    return { settings: parsed.data };
  }
}

/** In torch's orientation or in that of Conv1D, where a tensor has one. */
function eitherWay(
  spec: PeftTensor,
  shape: readonly number[],
  dims: readonly number[],
  window: readonly number[] | undefined,
): boolean {
  return [true, false].some((outFirst) => fitsShape(spec, dims, peftShape(spec, shape, outFirst), window));
}
