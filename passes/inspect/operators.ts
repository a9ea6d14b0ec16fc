/** Operators of a model, and which of them gradients would have to cross. */
import { type Node, type Value, walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { isFloat } from '../../src/types.js';
import type { WeightSite } from '../sites/site.js';
import type { OperatorInfo } from './report.js';

/** Whether a gradient rule exists for an operator. */
export type GradientTest = (op: string, domain: string) => boolean;

/** Nodes reached from the outputs of sites through floating-point values: where an adapter's gradient would flow. */
export function trainableNodes(sites: readonly WeightSite[]): Set<Node> {
  const nodes = new Set<Node>();
  const seen = new Set<Value>();
  const queue: Value[] = [];
  for (const site of sites) {
    if (site.y !== undefined) queue.push(site.y);
    else {
      // Only the weight form attaches, so the op itself is crossed.
      nodes.add(site.node);
      for (const output of site.node.outputs) if (output !== null) queue.push(output);
    }
  }
  for (let value = queue.pop(); value !== undefined; value = queue.pop()) {
    if (seen.has(value) || !carriesGradient(value)) continue;
    seen.add(value);
    for (const use of value.uses) {
      if (use.kind === 'output') continue;
      const outputs = use.node.outputs.filter((output) => output !== null && carriesGradient(output));
      // Shape, IsNaN, comparisons: nothing flows back through integers and booleans.
      if (outputs.length === 0) continue;
      nodes.add(use.node);
      for (const output of outputs) if (output !== null) queue.push(output);
    }
  }
  return nodes;
}

function carriesGradient({ type }: Value): boolean {
  return type?.kind !== 'tensor' || isFloat(type.dtype);
}

export function operatorInfo(
  model: Model,
  trainable: ReadonlySet<Node>,
  hasGradient: GradientTest | undefined,
): OperatorInfo[] {
  const counts = new Map<string, { sample: Node; count: number; onTrainablePath: number }>();
  for (const node of walkNodes(model.graph)) {
    const entry = counts.get(node.qualifiedOp) ?? { sample: node, count: 0, onTrainablePath: 0 };
    entry.count++;
    if (trainable.has(node)) entry.onTrainablePath++;
    counts.set(node.qualifiedOp, entry);
  }
  return [...counts]
    .map(([op, { sample, count, onTrainablePath }]) => ({
      op,
      count,
      onTrainablePath,
      gradient: hasGradient === undefined ? null : hasGradient(sample.op, sample.domain),
    }))
    .sort((a, b) => b.count - a.count || (a.op < b.op ? -1 : 1));
}
