/** Residual blocks: sums of a stream and of what a chain of layers computed from that same stream. */
import type { Node, Value } from '../../../src/graph.js';
import { isFloat } from '../../../src/types.js';
import { dtypeOf, rankOf, sizeAt } from '../../../src/value-type.js';
import type { NormDraft } from '../draft.js';
import { graphOf } from '../linear.js';
import type { LinearSite, SublayerSite } from '../site.js';
import type { AttentionCore } from './attention.js';
import { feeding, type Linears, readingOf, wholeOf } from './linears.js';
import { normNodes } from './norms.js';
import { gateOf } from './roles.js';
import { sumOutput } from './sums.js';
import { isConstant, mayBeFloat, origin, passes, type Reading, scaling, unflattened } from './trace.js';

export interface Block {
  readonly site: Omit<SublayerSite, 'path' | 'confidence' | 'source' | 'guesses' | 'callOf'>;
  /** The linear whose output joins the stream; absent where several do, weighted by a router. */
  readonly last?: LinearSite;
  /** Linears of the block, whole ones. */
  readonly linears: readonly LinearSite[];
}

type NormPlace = Pick<NormDraft, 'node' | 'x' | 'y'>;

export interface Surroundings {
  readonly linears: Linears;
  readonly norms: readonly NormPlace[];
  readonly cores: readonly AttentionCore[];
}

interface Indexed extends Surroundings {
  /** Normalizations by output. */
  readonly normed: ReadonlyMap<Value, NormPlace>;
}

/** Blocks in order of execution; `nodes` must be in that order. */
export function detectSublayers(nodes: Iterable<Node>, around: Surroundings): Block[] {
  const blocks: Block[] = [];
  const sums = new Map<Node, Block>();
  const indexed = { ...around, normed: new Map(around.norms.map((norm) => [norm.y, norm] as const)) };
  for (const node of nodes) {
    if (sums.has(node) || (node.qualifiedOp !== 'Add' && sumOutput(node) === undefined)) continue;
    const own = [0, 1].map((input) => blockAt(node, input, { node, index: 1 - input }, indexed, sums));
    const found = own.find((block) => block !== undefined);
    if (found !== undefined) {
      blocks.push(found);
      sums.set(node, found);
      continue;
    }
    for (const block of parallelBlocks(node, indexed, sums)) {
      blocks.push(block);
      sums.set(block.site.stream?.node ?? node, block);
    }
  }
  return blocks;
}

/** Attention and feed-forward of one layer, added to each other before the stream (GPT-NeoX, Phi). */
function parallelBlocks(node: Node, around: Indexed, sums: ReadonlyMap<Node, Block>): readonly Block[] {
  const [use] = node.output(0).uses;
  if (node.output(0).uses.size !== 1 || use?.kind !== 'node' || use.node.qualifiedOp !== 'Add') return [];
  const stream = { node: use.node, index: 1 - use.index };
  const both = [0, 1].map((input) => blockAt(node, input, stream, around, sums));
  const [a, b] = both;
  return a === undefined || b === undefined || a.site.role === b.site.role ? [] : [a, b];
}

/** The block that input `input` of the sum `node` is the output of, if it was computed from the stream. */
function blockAt(
  node: Node,
  input: number,
  joined: Reading,
  around: Indexed,
  sums: ReadonlyMap<Node, Block>,
): Block | undefined {
  const { linears, cores, norms } = around;
  const z = node.input(input);
  const stream = joined.node.input(joined.index);
  const dim = sizeAt(z, -1);
  const dtype = dtypeOf(z);
  if (dim === undefined || dtype === undefined || !isFloat(dtype)) return undefined;
  if (isConstant(stream) || isConstant(z)) return undefined;
  const last = lastLinear(z, around);
  if (last !== undefined && last.outDim !== dim) return undefined;
  for (const start of starts(stream, sums)) {
    const nodes = between(start, z, last);
    if (nodes === undefined || [...sums.keys()].some((sum) => nodes.has(sum))) continue;
    const attends = cores.some((core) => nodes.has(core.node));
    const own = [...linears.byNode.values()]
      .filter((site) => nodes.has(site.node))
      .sort((a, b) => (linears.order.get(a.node) ?? 0) - (linears.order.get(b.node) ?? 0));
    const entry = entryOf(attends, cores, nodes, last ?? own, linears, rankOf(z));
    if (entry === undefined) continue;
    const read = entry.node.input(entry.index);
    const postNorm = origin(read, 'order') === origin(start, 'order');
    return {
      ...(last === undefined ? {} : { last }),
      linears: own,
      site: {
        kind: 'sublayer',
        role: attends ? 'attention' : 'feed-forward',
        node,
        graph: graphOf(node),
        dtype,
        input,
        residual: 1 - input,
        ...(joined.node === node ? {} : { stream: joined }),
        entry,
        norm: postNorm && joined.node === node ? normBehind(node, norms) : [],
        dim,
      },
    };
  }
  return undefined;
}

/** The linear that `z` is the output of, perhaps scaled, normalized or in another layout. */
function lastLinear(z: Value, { linears, normed }: Indexed): LinearSite | undefined {
  let at = z;
  for (;;) {
    const site = linears.byOutput.get(at);
    if (site !== undefined) return site.packedIn === undefined ? site : undefined;
    const norm = normed.get(at);
    const node = at.producer;
    if (norm !== undefined) at = norm.x;
    else if (node === undefined) return undefined;
    else if (passes(node, 'order')) at = node.input(0);
    else {
      const scaled = scaling(node) ?? layerScale(node);
      if (scaled === undefined) return undefined;
      at = scaled.input;
    }
  }
}

/** A product with a constant vector. */
function layerScale(node: Node): { readonly input: Value } | undefined {
  if (node.qualifiedOp !== 'Mul') return undefined;
  if (isConstant(node.input(1))) return { input: node.input(0) };
  return isConstant(node.input(0)) ? { input: node.input(1) } : undefined;
}

/**
 * Where the block may have branched off: the stream itself, or, where attention and feed-forward run side by side, the
 * stream before the other one joined.
 */
function starts(stream: Value, sums: ReadonlyMap<Node, Block>): Value[] {
  const at = origin(stream, 'order');
  const block = at.producer === undefined ? undefined : sums.get(at.producer);
  if (block === undefined) return [at];
  const { node, residual, stream: joined = { node, index: residual } } = block.site;
  return [at, origin(joined.node.input(joined.index), 'order')];
}

/**
 * Nodes on the way from `start` to `z`, if there is one, and one that ends in `last` where that is known. A fused sum hands on its normalization
 * beside the sum, so reaching the node that makes `start` is enough.
 */
function between(start: Value, z: Value, last: LinearSite | undefined): ReadonlySet<Node> | undefined {
  const beginning = start.producer;
  const reaches = new Map<Node, boolean>();
  const isStart = (value: Value): boolean =>
    value === start || (beginning !== undefined && value.producer === beginning);
  // Depth first without recursion: blocks are short, but what lies before a wrong start is not.
  const visit = (root: Node): boolean => {
    const stack: Node[] = [root];
    while (stack.length > 0) {
      const node = stack.at(-1) as Node;
      if (reaches.has(node)) {
        stack.pop();
        continue;
      }
      const inputs = node.inputs.filter((value) => value !== null && mayBeFloat(value)) as Value[];
      const open = inputs
        .filter((value) => !isStart(value))
        .map(({ producer }) => producer)
        .filter((producer) => producer !== undefined && !reaches.has(producer)) as Node[];
      if (open.length > 0) {
        stack.push(...open);
        continue;
      }
      reaches.set(
        node,
        inputs.some(
          (value) => isStart(value) || (value.producer !== undefined && reaches.get(value.producer) === true),
        ),
      );
      stack.pop();
    }
    return reaches.get(root) === true;
  };
  if (z.producer === undefined || isStart(z) || !visit(z.producer)) return undefined;
  if (last !== undefined && reaches.get(last.node) !== true) return undefined;
  return new Set([...reaches].filter(([, reached]) => reached).map(([node]) => node));
}

/** Who reads the block's input: the query's linear, or the feed-forward's first one; of experts, the first of all. */
function entryOf(
  attends: boolean,
  cores: readonly AttentionCore[],
  nodes: ReadonlySet<Node>,
  last: LinearSite | readonly LinearSite[],
  linears: Linears,
  rank: number | undefined,
): Reading | undefined {
  const query = cores.find((core) => nodes.has(core.node))?.query;
  const first = attends ? query : 'kind' in last ? firstOf(last, linears) : last[0];
  if (first === undefined) return undefined;
  const whole = wholeOf(first, linears);
  const reading = readingOf(whole);
  return whole.xAxis === -1 ? unflattened(reading, rank, whole.inDim) : reading;
}

/** The factor without the activation where there are two, else the one there is. */
function firstOf(last: LinearSite, linears: Linears): LinearSite | undefined {
  const found = feeding(last.x, linears);
  const [a, b] = found;
  if (a === undefined || b === undefined) return a;
  return gateOf(last.x, a, b, linears) === a ? b : a;
}

/** Nodes of the normalization that alone reads the sum. */
function normBehind(sum: Node, norms: readonly NormPlace[]): readonly Node[] {
  if (sumOutput(sum) !== undefined) {
    const total = sum.outputs[sumOutput(sum) ?? 0];
    return total === null || total === undefined || total.uses.size === 0 ? [sum] : [];
  }
  const norm = norms.find(({ x }) => origin(x) === sum.output(0) || x === sum.output(0));
  if (norm === undefined) return [];
  const own = normNodes(norm);
  const inside = (value: Value): boolean =>
    [...value.uses].every(
      (use) =>
        use.kind === 'node' &&
        (own.includes(use.node) ||
          use.node.qualifiedOp === 'Shape' ||
          (passes(use.node, 'elements') && inside(use.node.output(0)))),
    );
  return inside(sum.output(0)) ? own : [];
}
