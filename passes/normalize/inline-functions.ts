/**
 * Replaces calls of model-local functions by copies of their bodies, in the main graph and the graphs nested in it,
 * until none is left. Attribute references become the attributes of the call, or the defaults of the function.
 */
import type { Attribute } from '../../src/attribute.js';
import { Cloner } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import { type Graph, type Node, Value, walkNodes } from '../../src/graph.js';
import { inferNode } from '../../src/infer/index.js';
import type { LocalFunction, Model } from '../../src/model.js';
import { schemaOf } from '../../src/ops/schema.js';
import type { Edit, Redirect } from '../edit.js';
import { definePass, type Pass } from '../pass.js';

/** Inlines every function. */
export const inlineFunctions: Pass = inlineFunctionsWhere(() => true);

/**
 * Inlines the functions that `select` picks; functions that nothing calls any more are dropped from the model.
 * Errors: `E_INVALID_GRAPH` for a function that calls itself, `E_UNSUPPORTED` where the function was written for another
 * version of an operator than the model imports.
 */
export function inlineFunctionsWhere(select: (fn: LocalFunction) => boolean): Pass {
  return definePass({
    name: 'inline-functions',
    summary: 'Replaces calls of model-local functions by their bodies',
    *run(model) {
      const functions = new Map(model.functions.filter(select).map((fn) => [keyOf(fn), fn]));
      const find = (node: Node): LocalFunction | undefined =>
        functions.get(keyOf({ domain: node.domain, name: node.op, overload: node.overload }));
      // Functions that a node was copied from, so that recursion is seen.
      const within = new Map<Node, readonly LocalFunction[]>();
      const pending = [...walkNodes(model.graph)].reverse();
      for (let call = pending.pop(); call !== undefined; call = pending.pop()) {
        const fn = find(call);
        if (fn === undefined) continue;
        const path = within.get(call) ?? [];
        if (path.includes(fn))
          fail('E_INVALID_GRAPH', {
            message: `Function ${fn.domain}.${fn.name} calls itself`,
            where: call.label,
            remedy: 'Functions of ONNX must not recurse; export the model again',
          });
        importOpsets(model, fn);
        const { edit, nodes } = inlineCall(model, call, fn);
        yield edit;
        const copies = nodes.flatMap((node) => [node, ...node.subgraphs.flatMap((g) => [...walkNodes(g)])]);
        for (const copy of copies.reverse()) {
          within.set(copy, [...path, fn]);
          pending.push(copy);
        }
      }
      dropUncalled(model);
    },
  });
}

function keyOf({ domain, name, overload }: Pick<LocalFunction, 'domain' | 'name' | 'overload'>): string {
  return `${domain}\n${name}\n${overload}`;
}

/**
 * The body will run under the opsets of the model. Domains that the model lacks are imported; where versions differ,
 * every operator of the body must have the same form in both.
 */
function importOpsets(model: Model, fn: LocalFunction): void {
  for (const [domain, version] of fn.opsets) {
    const own = model.opsets.get(domain);
    if (own === undefined) model.opsets.set(domain, version);
    if (own === undefined || own === version) continue;
    for (const node of walkNodes(fn.graph)) {
      if (node.domain !== domain) continue;
      const written = schemaOf(domain, node.op, version);
      if (written !== undefined && written.since !== schemaOf(domain, node.op, own)?.since)
        fail('E_UNSUPPORTED', {
          message: `Function ${fn.domain}.${fn.name} uses ${node.qualifiedOp} of opset ${version}, and its form differs at opset ${own} of the model`,
          where: node.label,
          remedy: 'Convert the model so that the model and its functions import one opset',
        });
    }
  }
}

function inlineCall(model: Model, call: Node, fn: LocalFunction): { edit: Edit; nodes: readonly Node[] } {
  const graph =
    call.graph ?? fail('E_INVALID_GRAPH', { message: 'The call is in no graph', where: call.label });
  const values = new Map<Value, Value>();
  const absent = new Set<Value>();
  for (const [index, formal] of fn.graph.inputs.entries()) {
    const operand = call.inputs[index] ?? new Value({ hint: 'absent' });
    if (call.inputs[index] === null || call.inputs[index] === undefined) absent.add(operand);
    values.set(formal, operand);
  }
  const cloner = new Cloner({
    values,
    names: 'hint',
    attribute: (_, attribute) => (attribute.type === 'ref' ? argument(call, fn, attribute) : attribute),
  });
  const nodes = [...fn.graph.nodes()].map((node) => cloner.node(node));
  for (const [source, copy] of cloner.nodes) {
    omitAbsent(copy, absent);
    copy.name =
      call.name === undefined || source.name === undefined ? undefined : `${call.name}/${source.name}`;
    copy.provenance = call.provenance;
    // Exporters note module paths on calls; nodes of the body without such notes are of the same module.
    for (const [key, text] of call.metadata) if (!copy.metadata.has(key)) copy.metadata.set(key, text);
  }
  const redirect: Redirect[] = [];
  const renamed = new Set<Value>();
  for (const [index, result] of call.outputs.entries()) {
    if (result === null) continue;
    const source = fn.graph.outputs[index]?.value;
    const copy = source === undefined ? undefined : cloner.value(source);
    if (copy === undefined || absent.has(copy))
      fail('E_INVALID_GRAPH', {
        message: `Function ${fn.domain}.${fn.name} does not compute output ${index}`,
        where: call.label,
        remedy: 'Give the call the inputs that this output depends on',
      });
    if (copy.producer !== undefined && nodes.includes(copy.producer) && !renamed.has(copy)) {
      copy.name = result.name;
      copy.hint = result.hint;
      renamed.add(copy);
    }
    redirect.push({ from: result, to: copy });
  }
  for (const node of nodes) inferNode(node, model);
  for (const { from, to } of redirect) if (renamed.has(to)) to.type ??= from.type;
  const edit: Edit = {
    label: `inline ${fn.domain}.${fn.name} at ${call.label}`,
    graph,
    add: { nodes, at: { before: call } },
    redirect,
    remove: [call],
  };
  return { edit, nodes };
}

/** What the call passes for a reference of the body; an attribute that is passed nothing is left out. */
function argument(
  call: Node,
  fn: LocalFunction,
  ref: Extract<Attribute, { type: 'ref' }>,
): Attribute | undefined {
  return call.attributes.get(ref.value) ?? fn.attributeDefaults?.get(ref.value);
}

/** Inputs that the call leaves out are left out in the body. */
function omitAbsent(node: Node, absent: ReadonlySet<Value>): void {
  for (const [index, input] of node.inputs.entries())
    if (input !== null && absent.has(input)) node.setInput(index, null);
}

function dropUncalled(model: Model): void {
  const byKey = new Map(model.functions.map((fn) => [keyOf(fn), fn]));
  const called = new Set<LocalFunction>();
  const visit = (graph: Graph): void => {
    for (const node of walkNodes(graph)) {
      const fn = byKey.get(keyOf({ domain: node.domain, name: node.op, overload: node.overload }));
      if (fn === undefined || called.has(fn)) continue;
      called.add(fn);
      visit(fn.graph);
    }
  };
  visit(model.graph);
  const kept = model.functions.filter((fn) => called.has(fn));
  model.functions.splice(0, model.functions.length, ...kept);
}
