/** If nodes whose condition is known: the branch that is taken moves into the graph around it. */
import { Cloner } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import { type Graph, type Node, type Value, walkNodes } from '../../src/graph.js';
import { retype } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import type { Edit, Redirect } from '../edit.js';
import { scalarOf } from '../grad/scalars.js';
import { definePass } from '../pass.js';

/**
 * Inlines the taken branch of every If with a constant condition, in the main graph and in nested ones, until none is
 * left. Errors: `E_INVALID_GRAPH` for an If that lacks the branch or whose branch returns too few values.
 */
export const branchesPass = definePass({
  name: 'inline-branches',
  summary: 'replaces If nodes whose condition is constant by the branch that is taken',
  *run(model: Model) {
    const pending = [...walkNodes(model.graph)].reverse();
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      const taken = takenBranch(node);
      if (taken === undefined || node.graph === undefined) continue;
      const { edit, nodes, results } = inlineBranch(node, node.graph, taken);
      yield edit;
      // What both branches agreed on is less than what is known of the one that is left.
      retype(model, results);
      for (const copy of nodes
        .flatMap((one) => [one, ...one.subgraphs.flatMap((g) => [...walkNodes(g)])])
        .reverse())
        pending.push(copy);
    }
  },
});

/** Bodies of an If. */
export function branchOf(node: Node, taken: boolean): Graph {
  const attribute = node.attributes.get(taken ? 'then_branch' : 'else_branch');
  return attribute?.type === 'graph'
    ? attribute.value
    : fail('E_INVALID_GRAPH', {
        message: `If has no ${taken ? 'then' : 'else'}_branch`,
        where: node.label,
        remedy: 'Export the model again',
      });
}

export function isIf(node: Node): boolean {
  return node.domain === '' && node.op === 'If';
}

function takenBranch(node: Node): Graph | undefined {
  if (!isIf(node)) return undefined;
  const condition = scalarOf(node.input(0));
  return condition === undefined ? undefined : branchOf(node, condition !== 0);
}

interface Inlined {
  readonly edit: Edit;
  readonly nodes: readonly Node[];
  /** What stands for the outputs that are read. */
  readonly results: readonly Value[];
}

function inlineBranch(node: Node, graph: Graph, branch: Graph): Inlined {
  // Names of a branch are free in the graph around it, but branches of several nodes may share them.
  const cloner = new Cloner({ names: 'hint' });
  const initializers = [...branch.initializers].map((value) => cloner.define(value));
  for (const inner of branch.nodes())
    for (const output of inner.outputs) if (output !== null) cloner.define(output);
  const nodes = [...branch.nodes()].map((inner) => cloner.node(inner));
  const own = new Set<Value>([
    ...initializers,
    ...nodes.flatMap((copy) => copy.outputs.filter((o) => o !== null)),
  ]);
  const redirect: Redirect[] = node.outputs.flatMap((from, index) => {
    if (from === null) return [];
    const source =
      branch.outputs[index]?.value ??
      fail('E_INVALID_GRAPH', {
        message: `The branch '${branch.name}' returns no value ${index}`,
        where: node.label,
        remedy: 'Export the model again',
      });
    const to = cloner.value(source);
    // The first of several outputs that one value stands behind gives it its name.
    if (own.has(to) && to.name === undefined) {
      to.name = from.name;
      to.hint = from.hint;
    }
    return [{ from, to }];
  });
  return {
    edit: {
      label: `inline '${branch.name}' of ${node.label}`,
      graph,
      add: { nodes, at: { before: node } },
      addInitializers: initializers,
      redirect,
      remove: [node],
    },
    nodes,
    results: [...new Set(redirect.map(({ to }) => to))].filter((value) => own.has(value)),
  };
}
