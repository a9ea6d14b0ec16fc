/**
 * `Einsum` of an activation with a constant: `abc,cd->abd` is a linear; `bsh,hnd->bsnd` and `bsnd,ndh->bsh` are linears
 * with split features. Where features take several axes of x or of the output, only the weight form attaches.
 */
import type { Node } from '../../../src/graph.js';
import { countOf } from '../../../src/types.js';
import type { Detector, LinearDraft } from '../draft.js';
import { graphOf, linearDraft, linearWeight } from '../linear.js';
import { traceConstant } from '../weight.js';

interface Contraction {
  /** Labels summed over, in the order of x. */
  readonly inner: string;
  /** Labels of the weight that reach the output. */
  readonly outer: string;
  readonly transposed: boolean;
}

/** The equation as `x · W`: x = batch + inner, output = batch + outer, W = inner + outer or outer + inner. */
function contraction(equation: string): Contraction | undefined {
  const [left, output] = equation.replaceAll(' ', '').split('->');
  const [x, w, ...more] = (left ?? '').split(',');
  if (x === undefined || w === undefined || output === undefined || more.length > 0) return undefined;
  const inner = [...x].filter((label) => !output.includes(label)).join('');
  const batch = x.slice(0, x.length - inner.length);
  const outer = output.slice(batch.length);
  if (inner === '' || outer === '' || x !== batch + inner || output !== batch + outer) return undefined;
  if (new Set(batch + inner + outer).size !== batch.length + inner.length + outer.length) return undefined;
  if (w === inner + outer) return { inner, outer, transposed: false };
  return w === outer + inner ? { inner, outer, transposed: true } : undefined;
}

function equationOf(node: Node): string {
  const attribute = node.attributes.get('equation');
  return attribute?.type === 'string' ? attribute.value : '';
}

export const einsum: Detector = {
  ops: ['Einsum'],
  detect(node) {
    const found = contraction(equationOf(node));
    const x = node.inputs[0];
    if (found === undefined || x === null || x === undefined || traceConstant(x) !== undefined) return [];
    const leading = found.transposed ? found.outer.length : found.inner.length;
    const weight = linearWeight(node, 1, {
      transposed: found.transposed,
      matrix: (dims) => [countOf(dims.slice(0, leading)), countOf(dims.slice(leading))],
    });
    if (weight === undefined) return [];
    if (found.inner.length === 1 && found.outer.length === 1)
      return [linearDraft({ node, x, y: node.output(0), weight })];
    const draft: LinearDraft = {
      kind: 'linear',
      node,
      graph: graphOf(node),
      dtype: weight.dtype,
      x,
      xAxis: -1,
      y: undefined,
      yAxis: -1,
      weight: weight.view,
      inDim: weight.inDim,
      outDim: weight.outDim,
    };
    return [draft];
  },
};
