/**
 * `Conv`. With a 1×1 window, one group and no padding or stride it is a linear over the channel axis. Any other one is a
 * linear over patches, [channels × window, out], which exist nowhere as a value: its weight alone can be adapted, and
 * what is added to the output takes the weight form.
 */
import { intAttribute, intsAttribute } from '../../../src/attribute.js';
import type { Node } from '../../../src/graph.js';
import { countOf } from '../../../src/types.js';
import { storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft, linearWeight } from '../linear.js';
import { traceConstant } from '../weight.js';

export const conv: Detector = {
  ops: ['Conv'],
  detect(node) {
    const pointwise = isPointwise(node) ? linearWeight(node, 1, { transposed: true }) : undefined;
    const weight = pointwise ?? linearWeight(node, 1, { transposed: true, matrix: patches });
    if (weight === undefined) return [];
    const draft = linearDraft({
      node,
      x: node.input(0),
      xAxis: 1,
      y: node.output(0),
      yAxis: 1,
      weight,
      ...storedBias(node, 2),
    });
    const form = {
      window: traceConstant(node.input(1))?.dims.slice(2) ?? [],
      groups: intAttribute(node, 'group', 1),
    };
    return [
      pointwise === undefined ? { ...draft, ...form, y: undefined, patches: true } : { ...draft, ...form },
    ];
  },
};

function isPointwise(node: Node): boolean {
  const moves = (intsAttribute(node, 'strides') ?? []).map((stride) => stride - 1);
  const still = [...(intsAttribute(node, 'pads') ?? []), ...moves].every((n) => n === 0);
  return still && intAttribute(node, 'group', 1) === 1;
}

/** [out, channels, window…] as [out, channels × window]. */
function patches([out, ...rest]: readonly number[]): readonly [number, number] | undefined {
  const columns = countOf(rest);
  return out === undefined || rest.length === 0 || out * columns === 0 ? undefined : [out, columns];
}
