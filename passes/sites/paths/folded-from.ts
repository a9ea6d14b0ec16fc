/** The parameter that onnxscript's constant folder transposed into an anonymous initializer. */
import { FOLDED_FROM } from './name-scopes.js';
import { moduleOfParameter } from './parameter-name.js';
import { parsePythonList } from './python-list.js';
import { perDraft } from './source.js';
import { ownership } from './weight-name.js';

export const foldedFrom = perDraft('folded_from', 'exporter', (draft, context) => {
  const list = parsePythonList(draft.weight.value.metadata.get(FOLDED_FROM) ?? '');
  // Several sources mean a computed constant, of which none owns the site.
  const owner = list?.length === 1 ? moduleOfParameter(list[0]) : undefined;
  if (owner === undefined || !owner.proper) return undefined;
  return { path: owner.path, confidence: ownership(draft, context) * 0.97 };
});
