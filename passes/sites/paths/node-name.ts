/** The scope in the node's name: `/model/layers.0/self_attn/q_proj/MatMul`. */
import type { Draft } from '../draft.js';
import { pathOfScopedName } from './scopes.js';
import { type PathContext, perDraft } from './source.js';

export const nodeName = perDraft('node name', 'exporter', (draft, context) => {
  const path = pathOfScopedName(draft.node.name);
  return path === undefined ? undefined : { path: firstCall(draft, path, context), confidence: 0.9 };
});

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
