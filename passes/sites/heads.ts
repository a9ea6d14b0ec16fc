/**
 * Output heads, which `all-linear` leaves alone as PEFT does: the output embedding of language models, and the modules
 * `classifier` and `score` of classifiers, which fine-tuning trains in full.
 */
import type { Node, Value } from '../../src/graph.js';
import type { LinearSite, Site } from './site.js';

/** Last components of language-model heads in the usual frameworks. */
const LANGUAGE_HEADS = new Set(['lm_head', 'embed_out', 'output_projection', 'proj_out']);

/** Modules near the root that PEFT keeps for full training (`modules_to_save` of sequence classifiers). */
const CLASSIFIERS = new Set(['classifier', 'score']);

/** Paths of the linears that are heads. */
export function outputHeads(sites: readonly Site[]): Set<string> {
  const linears = sites.filter((site) => site.kind === 'linear');
  const vocabularies = new Set(sites.filter((site) => site.kind === 'embedding').map((site) => site.vocab));
  const nodes = new Set(linears.map((site) => site.node));
  return new Set(
    linears
      .filter((site) => isNamedHead(site) || (vocabularies.has(site.outDim) && endsGraph(site, nodes)))
      .map((site) => site.path),
  );
}

function isNamedHead({ path, callOf }: LinearSite): boolean {
  const components = (callOf ?? path).split('.');
  if (LANGUAGE_HEADS.has(components.at(-1) ?? '')) return true;
  // The root may be wrapped once: `model.classifier`.
  return components.slice(0, 2).some((component) => CLASSIFIERS.has(component));
}

/** Whether the output reaches a result of the graph without passing another linear. */
function endsGraph(site: LinearSite, linears: ReadonlySet<Node>): boolean {
  const seen = new Set<Value>();
  const queue: Value[] = site.y === undefined ? [] : [site.y];
  for (let value = queue.pop(); value !== undefined; value = queue.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    for (const use of value.uses) {
      if (use.kind === 'output') return true;
      // The scale of a quantised activation goes around the product that the integers go into.
      if (linears.has(use.node) || use.node.op === 'DynamicQuantizeLinear') continue;
      for (const output of use.node.outputs) if (output !== null) queue.push(output);
    }
  }
  return false;
}
