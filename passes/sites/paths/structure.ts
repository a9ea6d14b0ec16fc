/**
 * Last resort for graphs without names: roles from the shape of the computation. Three linears over one input are
 * query, key and value and open a block; the next one back to the width of the block is the attention output; then
 * one up and one down. Everything else is numbered.
 */
import type { Draft, LinearDraft } from '../draft.js';
import type { PathGuess } from '../site.js';
import type { PathSource } from './source.js';

const ROLE = 0.5;
const NUMBER = 0.1;

export const structure: PathSource = {
  id: 'structure',
  spelling: 'framework',
  propose({ drafts }) {
    const found = new Map<Draft, Omit<PathGuess, 'source'>>();
    const linears = drafts
      .filter((draft) => draft.kind === 'linear')
      .filter(({ weight }) => weight.slice === undefined);
    const triples = qkvTriples(linears);
    let block = -1;
    let width = 0;
    let roles: string[] = [];
    const seen = new Map<LinearDraft, string>();
    for (const [i, linear] of linears.entries()) {
      const triple = triples.get(linear);
      if (triple !== undefined && !seen.has(linear)) {
        block++;
        width = linear.inDim;
        roles = ['o', 'up', 'down'];
        for (const [k, member] of triple.entries())
          seen.set(member, `layers.${block}.${['q', 'k', 'v'][k] ?? k}`);
      }
      const known = seen.get(linear);
      const role = roles[0];
      if (known !== undefined) found.set(linear, { path: known, confidence: ROLE });
      else if (role !== undefined && fits(linear, role, width)) {
        roles.shift();
        found.set(linear, { path: `layers.${block}.${role}`, confidence: ROLE });
      } else found.set(linear, { path: `linear.${i}`, confidence: NUMBER });
    }
    for (const [i, table] of drafts.filter((draft) => draft.kind === 'embedding').entries())
      found.set(table, { path: `embedding.${i}`, confidence: NUMBER });
    for (const [i, norm] of drafts.filter((draft) => draft.kind === 'norm').entries())
      found.set(norm, { path: `norm.${i}`, confidence: NUMBER });
    return found;
  },
};

/** Linears that are the first, second and third of exactly three that read one value. */
function qkvTriples(linears: readonly LinearDraft[]): Map<LinearDraft, readonly LinearDraft[]> {
  const byInput = new Map<LinearDraft['x'], LinearDraft[]>();
  for (const linear of linears) {
    const group = byInput.get(linear.x);
    if (group === undefined) byInput.set(linear.x, [linear]);
    else group.push(linear);
  }
  const triples = new Map<LinearDraft, readonly LinearDraft[]>();
  for (const group of byInput.values())
    if (group.length === 3) for (const member of group) triples.set(member, group);
  return triples;
}

function fits({ inDim, outDim }: LinearDraft, role: string, width: number): boolean {
  if (role === 'up') return inDim === width && outDim > width;
  if (role === 'down') return inDim > width && outDim === width;
  return outDim === width;
}
