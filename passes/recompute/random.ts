/** Operators whose outputs differ from one computation to the next. */
import { type Node, walkNodes } from '../../src/graph.js';

const DRAWING: ReadonlySet<string> = new Set([
  ...['RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Bernoulli', 'Multinomial'],
  // With a training mode that is true; without one, computing it again costs what keeping it costs.
  'Dropout',
]);

/** Whether computing a node twice may give other numbers, because it or a body of it draws them. */
export function isRandom(node: Node): boolean {
  if (node.domain === '' && DRAWING.has(node.op)) return true;
  return node.subgraphs.some((body) => [...walkNodes(body)].some(isRandom));
}
