/**
 * Metadata of the dynamo exporter: `pkg.torch.onnx.name_scopes` is the list of enclosing modules, outermost first, the
 * FX node last. Files that lost it may still have `namespace`.
 */
import type { Node } from '../../../src/graph.js';
import type { Draft } from '../draft.js';
import { moduleOfParameter } from './parameter-name.js';
import { parsePythonList } from './python-list.js';
import { perDraft } from './source.js';

const SCOPES = 'pkg.torch.onnx.name_scopes';
const NAMESPACE = 'namespace';

/** The innermost module a node lies in. */
export function moduleOfNode(node: Node): string | undefined {
  const scopes = node.metadata.get(SCOPES);
  const list = scopes === undefined ? undefined : parsePythonList(scopes);
  if (list !== undefined) return list.at(-2);
  // `: Model/encoder: Encoder/encoder.0: torch.nn.Linear/linear: aten.linear.default`
  const namespace = node.metadata.get(NAMESPACE)?.split('/');
  return namespace?.at(-2)?.split(':')[0];
}

/** Names the exporter knows for the parameter behind a weight. */
function parameterOf({ weight }: Draft): string | undefined {
  const { value } = weight;
  const folded = parsePythonList(value.metadata.get(FOLDED_FROM) ?? '');
  return folded?.length === 1 ? folded[0] : value.name;
}

/** Written by onnxscript's constant folder: the initializers that went into a new one. */
export const FOLDED_FROM = 'pkg.onnxscript.optimizer.folded_from';

export const nameScopes = perDraft('name_scopes', 'framework', (draft) => {
  const path = moduleOfNode(draft.node);
  if (path === undefined || path === '') return undefined;
  // A functional call (`F.linear(x, self.out_proj.weight)`) lies in the scope of the caller; the parameter knows better.
  const owner = moduleOfParameter(parameterOf(draft));
  const functional = owner?.proper === true && owner.path.startsWith(`${path}.`);
  return { path, confidence: functional ? 0.8 : 0.99 };
});
