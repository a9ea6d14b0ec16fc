/** Splits into many parts as one Slice per part: a shader has a handful of buffers, and Split wants one per part. */
import { intAttribute } from '../../src/attribute.js';
import type { Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { shapeOf } from '../../src/value-type.js';
import { replaceNode } from '../normalize/rewrite.js';
import { definePass, type Pass } from '../pass.js';

/** Rewrites Splits of more than `most` parts whose sizes are known. */
export function wideSplits(most: number): Pass {
  return definePass({
    name: 'wide-splits',
    summary: 'cuts parts out one by one where a device cannot split into that many',
    *run(model: Model) {
      for (const node of [...model.graph.nodes()]) {
        if (node.domain !== '' || node.op !== 'Split' || node.outputs.length <= most) continue;
        const sizes = partSizes(node);
        if (sizes === undefined) continue;
        yield replaceNode(model, node, 'wide-splits', (b) => {
          let start = 0;
          return node.outputs.map((output, i): Value | null => {
            const end = start + (sizes[i] as number);
            const part = output === null ? null : b.op.Slice(node.input(0), [start], [end], [axisOf(node)]);
            start = end;
            return part;
          });
        });
      }
    },
  });
}

function axisOf(node: Node): number {
  return intAttribute(node, 'axis', 0);
}

function partSizes(node: Node): number[] | undefined {
  const sizes = node.outputs.map((output) =>
    output === null ? undefined : shapeOf(output)?.at(axisOf(node)),
  );
  return sizes.every((size) => typeof size === 'number') ? sizes : undefined;
}
