/** The last release of ONNX Runtime with its training API reads opset 21 and IR 10, and nothing newer. */
import { fail } from '../../../src/errors.js';
import { type Node, walkNodes } from '../../../src/graph.js';
import { inferModel } from '../../../src/infer/index.js';
import type { Model } from '../../../src/model.js';
import { type OpSchema, schemaOf } from '../../../src/ops/schema.js';
import { expandPass } from '../../normalize/expand.js';
import { runPasses } from '../../runner.js';

export const NEWEST_OPSET = 21;
export const NEWEST_IR = 10;

/**
 * Brings a model down to what the training API reads: operators that came later are written out, and forms that only
 * gained types or optional parts since are declared in the older version.
 * Throws E_UNSUPPORTED for an operator that says something which opset 21 cannot.
 */
export function lowerOpset(model: Model): void {
  model.irVersion = Math.min(model.irVersion, NEWEST_IR);
  const opset = model.opset('');
  if (opset <= NEWEST_OPSET) return;
  inferModel(model);
  runPasses(model, [expandPass]);
  for (const node of walkNodes(model.graph)) checkNode(node, opset);
  for (const { graph, opsets } of model.functions)
    for (const node of walkNodes(graph)) checkNode(node, opsets.get('') ?? opset);
  model.opsets.set('', NEWEST_OPSET);
  for (const [i, fn] of model.functions.entries()) {
    const own = fn.opsets.get('');
    if (own !== undefined && own > NEWEST_OPSET)
      model.functions[i] = { ...fn, opsets: new Map([...fn.opsets, ['', NEWEST_OPSET]]) };
  }
}

function checkNode(node: Node, opset: number): void {
  if (node.domain !== '' || opset <= NEWEST_OPSET) return;
  const from = schemaOf('', node.op, opset);
  // ONNX Runtime's own operators in the standard domain have no versions.
  if (from === undefined) return;
  const to = schemaOf('', node.op, NEWEST_OPSET);
  if (to === undefined || (from.since !== to.since && !fits(node, from, to)))
    fail('E_UNSUPPORTED', {
      message: `ONNX Runtime Training reads opset ${NEWEST_OPSET}, which has no such form of ${node.op}`,
      where: node.label,
      remedy: `Export the model with opset ${NEWEST_OPSET} or older`,
    });
}

/** Every part of the node is there in the older form and means the same. */
function fits(node: Node, from: OpSchema, to: OpSchema): boolean {
  const variadic = to.inputs.at(-1)?.option === 'variadic';
  const inputs = node.inputs.every(
    (input, i) =>
      input === null || (to.inputs[i] === undefined ? variadic : to.inputs[i].name === from.inputs[i]?.name),
  );
  const attributes = [...node.attributes.keys()].every((name) => to.attributes.has(name));
  const defaults = [...to.attributes].every(
    ([name, attribute]) =>
      node.attributes.has(name) ||
      JSON.stringify(from.attributes.get(name)?.default) === JSON.stringify(attribute.default),
  );
  return inputs && attributes && defaults && node.outputs.length <= Math.max(1, to.outputs.length);
}
