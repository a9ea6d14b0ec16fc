/** Keys of a PEFT file taken apart: module path, and the tensor of a method behind it. */
import type { PeftFormat } from '../../passes/methods/contract/peft-format.js';
import type { SiteKind } from '../../passes/sites/site.js';
import { fail } from '../../src/errors.js';
import type { Tensor } from '../../src/tensor.js';
import type { FormattedMethod } from './formats.js';

/** Tensors of one method at one module. */
export interface StoredModule {
  readonly owner: FormattedMethod;
  /** As PEFT names the module, without `base_model.model.`. */
  readonly path: string;
  /** By key behind the path. */
  readonly tensors: Map<string, Tensor>;
  /** Kinds of sites that have all of these tensors. */
  readonly kinds: readonly SiteKind[];
}

export interface SortedKeys {
  readonly modules: readonly StoredModule[];
  /** Tensors that all modules share, by key behind `base_model.`. */
  readonly shared: ReadonlyMap<string, Tensor>;
  /** The tensor of an adapter of the whole model. */
  readonly whole: Tensor | undefined;
}

/** `base_model.` is the PeftModel's, `model.` the tuner's, which prompts do without. */
const PREFIXES = { whole: /^base_model\./, modules: /^base_model\.(?:model\.)?/ } as const;

/** Wrappers that a path runs through, and which no base has. */
const WRAPPERS = /\.(?:modules_to_save|token_adapter)(?=\.)/g;

/** The module as it was before training, which a wrapper keeps beside the trained one. */
const ORIGINAL = /\.original_module\./;

/** Sorts the tensors of a file. Throws E_INVALID_DATA for keys that belong to nothing. */
export function sortKeys(
  tensors: ReadonlyMap<string, Tensor>,
  main: FormattedMethod,
  others: readonly FormattedMethod[],
  where: string,
): SortedKeys {
  const shared = new Map<string, Tensor>();
  const sharedKeys = new Set(Object.values(main.format.shared ?? {}).map(({ key }) => key));
  let whole: Tensor | undefined;
  const modules = new Map<string, Omit<StoredModule, 'kinds'>>();
  const unknown: string[] = [];
  for (const [key, tensor] of tensors) {
    const top = key.replace(/^base_model\./, '');
    if (sharedKeys.has(top)) shared.set(top, tensor);
    else if (key === main.format.whole?.key) whole = tensor;
    else if (!ORIGINAL.test(key) && main.format.ignores?.some((part) => key.includes(part)) !== true) {
      const stem = key.replace(PREFIXES[main.format.whole === undefined ? 'modules' : 'whole'], '');
      const found = ownerOf(stem.replace(WRAPPERS, ''), [main, ...others]);
      if (found === undefined) {
        if (!isCopyOfShared(stem, sharedKeys)) unknown.push(key);
      } else {
        const id = `${found.owner.method.id} ${found.path}`;
        const module = modules.get(id) ?? { owner: found.owner, path: found.path, tensors: new Map() };
        modules.set(id, module);
        module.tensors.set(found.key, tensor);
      }
    }
  }
  if (unknown.length > 0)
    fail('E_INVALID_DATA', {
      message: `${unknown.length} tensors are none of a ${main.format.types[0]} adapter: ${unknown.slice(0, 5).join(', ')}`,
      where,
      remedy: `Its tensors at a module are ${keysOf(main.format).join(', ')}`,
    });
  return {
    modules: [...modules.values()].map((module) => ({ ...module, kinds: kindsOf(module, where) })),
    shared,
    whole,
  };
}

/** Some types save what all modules share once more at every module. */
function isCopyOfShared(stem: string, sharedKeys: ReadonlySet<string>): boolean {
  return sharedKeys.has(stem.slice(stem.lastIndexOf('.') + 1));
}

/** Keys behind the module path, longest first: `lora_B.bias` is no `bias`. */
function keysOf({ tensors }: PeftFormat): string[] {
  const keys = Object.values(tensors).flatMap((roles) => Object.values(roles).map(({ key }) => key));
  return [...new Set(keys)].sort((a, b) => b.length - a.length);
}

function ownerOf(
  stem: string,
  candidates: readonly FormattedMethod[],
): { readonly owner: FormattedMethod; readonly path: string; readonly key: string } | undefined {
  for (const owner of candidates)
    for (const key of keysOf(owner.format))
      if (stem.endsWith(`.${key}`)) {
        // A wrapper keeps the module it is around as its base_layer.
        const path = stem.slice(0, -key.length - 1).replace(/\.base_layer(?=\.|$)/g, '');
        return { owner, path, key };
      }
  return undefined;
}

function kindsOf({ owner, path, tensors }: Omit<StoredModule, 'kinds'>, where: string): SiteKind[] {
  const kinds = Object.entries(owner.format.tensors).flatMap(([kind, roles]) => {
    const known = new Set(Object.values(roles).map(({ key }) => key));
    return [...tensors.keys()].every((key) => known.has(key)) ? [kind as SiteKind] : [];
  });
  if (kinds.length === 0)
    fail('E_INVALID_DATA', {
      message: `The tensors ${[...tensors.keys()].join(', ')} do not belong to one module`,
      where: `${where}: ${path}`,
      remedy: 'Save the adapter again',
    });
  return kinds;
}
