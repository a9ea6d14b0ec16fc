/** The token embedding of a model whose sequence can grow: where virtual tokens can stand in front. */
import type { Graph, Value } from '../../../src/graph.js';
import type { Dim } from '../../../src/types.js';
import { dtypeOf, shapeOf } from '../../../src/value-type.js';
import type { EmbeddingSite, PromptSite } from '../site.js';
import { POSITION_INPUT } from './positions.js';
import { origin, passes } from './trace.js';

export type PromptDraft = Omit<PromptSite, 'path' | 'confidence' | 'source' | 'guesses' | 'callOf'>;

/** What names tell of inputs that have a number per token and are no token ids. */
const MEANINGS: readonly (readonly [RegExp, 'one' | 'zero' | 'position'])[] = [
  [POSITION_INPUT, 'position'],
  [/(^|[._/])(token_?types?(_ids?)?|segment(_ids?)?|type_ids?)$/i, 'zero'],
  [/(^|[._/])((attention|input|padding)_?mask|mask)$/i, 'one'],
];

/**
 * The prompt site of a graph with the embedding it stands at: the largest table that is looked up by a graph input with
 * a batch axis and a symbolic time axis. Undefined where another input has that axis in a way that is not known, or
 * where there are inputs of past steps.
 */
export function detectPrompt(
  graph: Graph,
  embeddings: readonly EmbeddingSite[],
): { readonly site: PromptDraft; readonly embedding: EmbeddingSite } | undefined {
  const candidates = embeddings
    .map((embedding) => ({ embedding, input: fed(graph, embedding.ids) }))
    .filter(({ input }) => input !== undefined && meaningOf(input) === undefined)
    .sort((a, b) => b.embedding.vocab - a.embedding.vocab);
  const [first] = candidates;
  const { embedding, input: ids } = first ?? {};
  if (embedding?.y === undefined || ids === undefined) return undefined;
  if (candidates.some(({ input }) => input !== ids)) return undefined;
  const [batch, time] = shapeOf(ids) ?? [];
  if (batch === undefined || typeof time !== 'string' || shapeOf(embedding.y)?.length !== 3) return undefined;
  if (candidates.filter(({ input }) => input === ids).length > 1) return undefined;
  const inputs = inputsOf(graph, ids, batch, time);
  const outputs = outputsOf(graph, time);
  if (inputs === undefined || outputs === undefined) return undefined;
  const { node, dtype, y, weight, vocab, dim } = embedding;
  return {
    embedding,
    site: { kind: 'prompt', node, graph, dtype, y, weight, vocab, dim, inputs, outputs },
  };
}

/** The graph input that a value holds, whatever its layout. */
function fed(graph: Graph, value: Value): Value | undefined {
  const at = origin(value, 'order');
  return graph.inputs.includes(at) && at.tensor === undefined ? at : undefined;
}

function meaningOf(input: Value): 'one' | 'zero' | 'position' | undefined {
  return MEANINGS.find(([name]) => name.test(input.name ?? ''))?.[1] ?? (isMask(input) ? 'one' : undefined);
}

/** Without a telling name: an input that becomes a truth value, or a float, and nothing else. */
function isMask(input: Value): boolean {
  const readers = [...input.users].filter((node) => node.qualifiedOp !== 'Shape');
  return (
    readers.length > 0 &&
    readers.every((node) =>
      node.qualifiedOp === 'Cast'
        ? dtypeOf(node.output(0)) === 'bool'
        : passes(node, 'order') && isMask(node.output(0)),
    )
  );
}

function inputsOf(graph: Graph, ids: Value, batch: Dim, time: string): PromptSite['inputs'] | undefined {
  const found: { value: Value; fill: PromptSite['inputs'][number]['fill'] }[] = [];
  for (const value of graph.inputs) {
    if (value.tensor !== undefined) continue;
    const shape = shapeOf(value);
    if (shape === undefined) return undefined;
    const perToken = shape.length === 2 && shape[0] === batch && shape[1] === time;
    if (!perToken) {
      const whole = /int|bool/.test(dtypeOf(value) ?? '');
      // Masks of other ranks and caches of past steps would have to grow in ways that shapes do not tell.
      if (mentions(shape, time) || (whole && shape.length > 0) || shape.length > 3) return undefined;
      continue;
    }
    const fill = value === ids ? 'token' : meaningOf(value);
    if (fill === undefined) return undefined;
    found.push({ value, fill });
  }
  return found;
}

/** Undefined where an output has the time axis in a form that cannot be cut. */
function outputsOf(graph: Graph, time: string): PromptSite['outputs'] | undefined {
  const found: { value: Value; axis: number }[] = [];
  for (const { value } of graph.outputs) {
    const shape = shapeOf(value);
    if (shape === undefined) return undefined;
    const axes = shape.flatMap((dim, axis) => (dim === time ? [axis] : []));
    const [axis] = axes;
    if (axis === undefined ? mentions(shape, time) : axes.length > 1) return undefined;
    if (axis !== undefined && !found.some((one) => one.value === value)) found.push({ value, axis });
  }
  return found;
}

function mentions(shape: readonly Dim[], symbol: string): boolean {
  const word = new RegExp(`(^|[^\\w.])${symbol.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}($|[^\\w.])`);
  return shape.some((dim) => typeof dim === 'string' && word.test(dim));
}
