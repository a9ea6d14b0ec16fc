/** The scope in the node's name: `/model/layers.0/self_attn/q_proj/MatMul`. */
import type { Draft } from '../draft.js';
import { moduleOfParameter } from './parameter-name.js';
import { pathOfScopedName } from './scopes.js';
import type { PathContext, PathSource } from './source.js';
import { ownership } from './weight-name.js';

export const nodeName: PathSource = {
  id: 'node name',
  spelling: 'exporter',
  propose(context) {
    const lost = lostPrefixes(context);
    return new Map(
      context.drafts.flatMap((draft) => {
        const scope = pathOfScopedName(draft.node.name);
        if (scope === undefined) return [];
        const prefix = lost.get(rootOf(scope)) ?? '';
        return [[draft, { path: prefix + firstCall(draft, scope, context), confidence: 0.9 }] as const];
      }),
    );
  },
};

/**
 * What scopes lack in front, by their first component: a model that calls `self.model.decoder(x)` never enters `model`,
 * so TorchScript's scopes begin at `decoder`. Parameters have whole names; where those of a scope all lack the same, its
 * other modules do too.
 */
function lostPrefixes(context: PathContext): ReadonlyMap<string, string> {
  const found = new Map<string, Set<string>>();
  for (const draft of context.drafts) {
    const scope = pathOfScopedName(draft.node.name);
    const owner = moduleOfParameter(draft.weight.value.name);
    if (scope === undefined || owner?.proper !== true || ownership(draft, context) < 1) continue;
    const whole = owner.path;
    const prefix = whole.endsWith(`.${scope}`) ? whole.slice(0, -scope.length) : '';
    const seen = found.get(rootOf(scope));
    if (seen === undefined) found.set(rootOf(scope), new Set([prefix]));
    else seen.add(prefix);
  }
  return new Map(
    [...found].flatMap(([root, [prefix = '', ...others]]) => (others.length === 0 ? [[root, prefix]] : [])),
  );
}

function rootOf(path: string): string {
  return path.split('.')[0] ?? path;
}

/**
 * TorchScript names the scope of a module's second call `name_1`. It is the same module when another reader of the
 * same weight has the path without those endings.
 */
function firstCall(draft: Draft, path: string, { readers }: PathContext): string {
  const components = path.split('.');
  for (const other of readers.get(draft.weight.value) ?? []) {
    const own = pathOfScopedName(other.node.name)?.split('.');
    if (other === draft || own === undefined || own.length !== components.length) continue;
    const same = components.every(
      (component, i) => component === own[i] || component.replace(/_\d+$/, '') === own[i],
    );
    if (same) return own.join('.');
  }
  return path;
}
