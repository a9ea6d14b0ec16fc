/**
 * Experts kept in one tensor whose name the exporter lost: the module from where their products lie, the parameter from
 * what it is for. `gate_up_proj` and `down_proj` are what transformers calls them in every such model.
 */
import type { Node, Value } from '../../../src/graph.js';
import type { LinearDraft } from '../draft.js';
import { moduleOfNode } from './name-scopes.js';
import { pathOfScopedName } from './scopes.js';
import type { PathSource } from './source.js';

/** The module is read off the graph, the parameter's name is a convention. */
const CONVENTION = 0.7;
/** Which of its parameters it is nothing says. */
const MODULE = 0.3;
const NUMBER = 0.1;

export const experts: PathSource = {
  id: 'experts',
  spelling: 'framework',
  propose({ drafts }) {
    const tensors = new Map<Value, LinearDraft[]>();
    for (const draft of drafts)
      if (draft.kind === 'linear' && draft.weight.slice !== undefined)
        tensors.set(draft.weight.value, [...(tensors.get(draft.weight.value) ?? []), draft]);
    const modules = new Map<string, LinearDraft[]>();
    for (const [draft] of tensors.values()) {
      const module = draft === undefined ? undefined : moduleOf(draft.node);
      if (draft !== undefined && module !== undefined)
        modules.set(module, [...(modules.get(module) ?? []), draft]);
    }
    const paths = new Map<Value, { readonly path: string; readonly confidence: number }>();
    for (const [i, value] of [...tensors.keys()].entries())
      paths.set(value, { path: `experts_${i}`, confidence: NUMBER });
    for (const [module, own] of modules) {
      const names = pairNames(own);
      for (const [i, { weight }] of own.entries())
        paths.set(
          weight.value,
          names === undefined
            ? { path: `${module}.parameter_${i}`, confidence: MODULE }
            : { path: `${module}.${names[i]}`, confidence: CONVENTION },
        );
    }
    return new Map(
      [...tensors].flatMap(([value, slices]) =>
        slices.map((draft) => [draft, paths.get(value) ?? { path: '', confidence: 0 }] as const),
      ),
    );
  },
};

/** What the two tensors of a module are called, of which the second takes what the first gives back to its width. */
function pairNames([first, second, ...more]: readonly LinearDraft[]): readonly string[] | undefined {
  if (first === undefined || second === undefined || more.length > 0) return undefined;
  const sameCount = first.weight.slice?.count === second.weight.slice?.count;
  if (first.inDim !== second.outDim || !sameCount) return undefined;
  if (first.outDim === 2 * second.inDim) return ['gate_up_proj', 'down_proj'];
  return first.outDim === second.inDim ? ['up_proj', 'down_proj'] : undefined;
}

/** The module of the product that the slices go into: what selects them may have come out of a decomposition. */
function moduleOf(node: Node, depth = 6): string | undefined {
  const own = moduleOfNode(node) ?? pathOfScopedName(node.name);
  if (own !== undefined && own !== '') return own;
  const [use] = node.output(0).uses;
  return node.qualifiedOp === 'MatMul' || depth === 0 || use?.kind !== 'node'
    ? undefined
    : moduleOf(use.node, depth - 1);
}
