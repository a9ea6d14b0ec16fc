/** Dropout and Identity as inference exports leave them: they do nothing, so they go. */
import type { Node } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { scalarOf } from '../grad/scalars.js';
import { stopsGradient } from '../grad/stop-gradient.js';
import { definePass } from '../pass.js';
import { unusedWith } from './rewrite.js';

/** No training_mode input (or a constant false one), and nobody reads the mask. */
function isInert(node: Node): boolean {
  if (node.domain !== '') return false;
  if (node.op === 'Identity') return !stopsGradient(node);
  if (node.op !== 'Dropout' || (node.outputs[1]?.uses.size ?? 0) > 0) return false;
  const training = node.inputs[2];
  return training === null || training === undefined || scalarOf(training) === 0;
}

export const dropoutPass = definePass({
  name: 'drop-inert',
  summary: 'removes Dropout in inference form and Identity',
  *run(model: Model) {
    for (const node of model.graph.nodes()) {
      const from = node.outputs[0];
      if (!isInert(node) || from === null || from === undefined) continue;
      yield {
        label: `drop-inert: ${node.label}`,
        graph: model.graph,
        redirect: [{ from, to: node.input(0) }],
        remove: unusedWith(node, new Set([node.input(0)])),
      };
    }
  },
});
