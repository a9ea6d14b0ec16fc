/** The name of the stored weight without the parameter's own name and what tools appended. */
import type { Draft } from '../draft.js';
import { moduleOfParameter } from './parameter-name.js';
import { pathOfScopedName } from './scopes.js';
import { type PathContext, perDraft } from './source.js';

/**
 * How far the owner of a weight is the site: 1 for a weight of its own. A tied weight has the name of one of its
 * readers, by convention the embedding, so a linear beside an embedding is believed half. So are the gains of several
 * normalizations that are one tensor (exporters merge vectors of equal numbers), and tables that are looked up several
 * times (T5's two stacks share one that is called after neither).
 */
export function ownership(draft: Draft, context: PathContext): number {
  const readers = context.readers.get(draft.weight.value) ?? [];
  const alike = readers.filter((reader) => reader.kind === draft.kind);
  if (isHeads(readers)) return draft.kind === 'linear' ? 1 : 0.5;
  if (draft.kind !== 'linear') return alike.length > 1 ? 0.5 : 1;
  return readers.some((reader) => reader.kind === 'embedding') ? 0.5 : 1;
}

/** Whether a tied weight is called after the linear that reads it and not after the table, as ORT GenAI's builder does. */
function isHeads(readers: readonly Draft[]): boolean {
  const kinds = new Set(readers.map(({ kind }) => kind));
  if (!kinds.has('linear') || !kinds.has('embedding')) return false;
  const owner = moduleOfParameter(readers[0]?.weight.value.name)?.path;
  const named = readers.filter(({ node }) => owner !== undefined && pathOfScopedName(node.name) === owner);
  return named.length > 0 && named.every(({ kind }) => kind === 'linear');
}

export const weightName = perDraft('weight name', 'exporter', (draft, context) => {
  const owner = moduleOfParameter(draft.weight.value.name);
  if (owner === undefined) return undefined;
  return { path: owner.path, confidence: ownership(draft, context) * (owner.proper ? 0.95 : 0.4) };
});
