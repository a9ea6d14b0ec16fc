/** Einsum: labels of the equation name dimensions. */
import { broadcastDims } from '../../dims.js';
import type { Dim, Shape } from '../../types.js';
import type { Call, Rule, Rules } from '../call.js';
import { broadcastShapes, unifyDims } from '../shapes.js';

/** Labels of a term; `...` stands for as many leading dimensions as are left. */
function labelsOf(c: Call, term: string, rank: number): { labels: string[]; at: number; extra: number } {
  const at = term.indexOf('...');
  const labels = [...term.replace('...', '')];
  const extra = rank - labels.length;
  if (extra < 0 || (at < 0 && extra !== 0)) c.error(`Einsum term '${term}' does not fit rank ${rank}`);
  return { labels, at: at < 0 ? labels.length : at, extra };
}

const einsum: Rule = (c) => {
  const equation = c.text('equation', '').replaceAll(/\s/g, '');
  const [left = '', right] = equation.split('->');
  const terms = left.split(',');
  const dims = new Map<string, Dim>();
  const counts = new Map<string, number>();
  let batch: Shape | null = [];
  for (const [i, term] of terms.entries()) {
    const shape = c.shape(i);
    if (shape === null) {
      if (right === undefined || right.includes('...')) return c.set(0, c.dtype(0), null);
      continue;
    }
    const { labels, at, extra } = labelsOf(c, term, shape.length);
    for (const [j, label] of labels.entries()) {
      const dim = shape[j < at ? j : j + extra] ?? null;
      const known = dims.get(label);
      // A size of 1 broadcasts, as in numpy.
      const merged =
        known === undefined
          ? dim
          : known === 1 || dim === 1
            ? broadcastDims(known, dim)
            : unifyDims(c, known, dim, `Sizes of '${label}'`);
      dims.set(label, merged);
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    batch = broadcastShapes(c, batch, shape.slice(at, at + extra));
  }
  // Without an arrow the labels that occur once are kept, in alphabetic order.
  const implicit = [...counts].filter(([, count]) => count === 1).map(([label]) => label);
  const target = right ?? `${left.includes('...') ? '...' : ''}${implicit.sort().join('')}`;
  const at = target.indexOf('...');
  const out = [...target.replace('...', '')].map((label) => dims.get(label) ?? null);
  if (at >= 0) out.splice(at, 0, ...(batch ?? []));
  c.set(0, c.dtype(0), out);
};

export const einsums: Rules = { Einsum: einsum };
