/** All sites of a model: detect, name, open packed weights. */
import { type Node, type Value, walkGraphs, walkNodes } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { topologicalOrder } from '../../src/order.js';
import { hasAdapterRecord, readAdapterRecord } from '../adapter-record.js';
import { isBuffer } from './buffers.js';
import { dependence } from './dependence.js';
import { detectorOf } from './detectors/index.js';
import type { Draft, LinearDraft } from './draft.js';
import { partPaths } from './packed-names.js';
import { type NamedDraft, nameDrafts } from './paths/index.js';
import type { ColumnRange, LinearSite, NormSite, Site, WeightSite } from './site.js';
import { structureOf } from './structure/index.js';
import { detectNorm } from './structure/norms.js';

export interface FindOptions {
  /** Module paths by node name, weight name or output name; they win over everything recovered. */
  readonly paths?: ReadonlyMap<string, string>;
}

/**
 * All sites of a model, in order of execution; the parts of a packed linear follow it. Linears know their roles. Values
 * without a type are inferred first: ranks and last axes tell packed projections behind Reshapes from other uses.
 */
export function findSites(model: Model, options: FindOptions = {}): Site[] {
  const { stored, order } = detect(model, options);
  const weights = stored.filter((site) => site.kind !== 'norm');
  const norms = stored.filter((site) => site.kind === 'norm');
  const { sites, roles } = structureOf(model, weights, norms, order);
  const places = new Map(order.map((node, i) => [node, i] as const));
  const place = ({ node }: Site): number => places.get(node) ?? order.length;
  const named = stored.map((site): Site => {
    const role = site.kind === 'linear' ? roles.get(site) : undefined;
    return role === undefined ? site : { ...(site as LinearSite), role };
  });
  return [...named, ...sites].sort((a, b) => place(a) - place(b));
}

/** Linear and embedding sites alone, in order of execution, without roles. */
export function findWeightSites(model: Model, options: FindOptions = {}): WeightSite[] {
  return detect(model, options).stored.filter((site) => site.kind !== 'norm');
}

interface Detected {
  /** Sites that own a weight. */
  readonly stored: readonly (WeightSite | NormSite)[];
  /** Nodes of the main graph and of every nested graph, producers first. */
  readonly order: readonly Node[];
}

function detect(model: Model, options: FindOptions): Detected {
  if (!isTyped(model)) inferModel(model);
  const drafts: Draft[] = [];
  const isComputed = dependence();
  const adapters = adapterTensors(model);
  const order = [...executionOrder(model)];
  for (const node of order) {
    const norm = detectNorm(node);
    for (const draft of [...(detectorOf(node)?.detect(node) ?? []), ...(norm === undefined ? [] : [norm])])
      if (
        !adapters.has(draft.weight.value.name ?? '') &&
        !isBuffer(draft.weight.value) &&
        (draft.kind === 'embedding' || isComputed(draft.x))
      )
        drafts.push(draft);
  }
  const named = nameDrafts(model, drafts, options.paths);
  const taken = new Set(named.map(({ path }) => path));
  const stored = named.flatMap((one): (WeightSite | NormSite)[] => {
    const site = siteOf(one);
    return site.kind === 'linear' ? [site, ...partsOf(one, site, taken)] : [site];
  });
  return { stored, order };
}

/** Nodes of all graphs, producers first: files are not always sorted, and paths that count sites depend on the order. */
function* executionOrder(model: Model): Iterable<Node> {
  for (const graph of walkGraphs(model.graph)) yield* topologicalOrder(graph);
}

/** Names of what an inserted adapter brought: its products are no layers of the model. */
function adapterTensors(model: Model): Set<string> {
  if (!hasAdapterRecord(model)) return new Set();
  return new Set(
    readAdapterRecord(model).sites.flatMap(({ params }) => Object.values(params).map(({ name }) => name)),
  );
}

function isTyped(model: Model): boolean {
  for (const node of walkNodes(model.graph))
    for (const output of node.outputs) if (output !== null && !hasShape(output)) return false;
  return true;
}

function hasShape({ type }: Value): boolean {
  return type !== undefined && (type.kind !== 'tensor' || type.shape !== null);
}

function siteOf({ draft, path, guess, guesses, callOf }: NamedDraft): WeightSite | NormSite {
  const naming = {
    path,
    confidence: guess.confidence,
    source: guess.source,
    guesses,
    ...(callOf === undefined ? {} : { callOf }),
  };
  if (draft.kind === 'embedding') return { ...draft, ...naming };
  if (draft.kind === 'norm') {
    const { weight: _gain, ...site } = draft;
    return { ...site, ...naming };
  }
  const { parts: _parts, ...site } = draft;
  return { ...site, ...naming };
}

/** Torch's MultiheadAttention takes its packed projection apart by Gather on a new axis: no column range is read. */
const IN_PROJECTION = /\.in_proj_(weight|bias)$/;

function partsFor(draft: LinearDraft): LinearDraft['parts'] {
  if (draft.parts !== undefined) return draft.parts;
  const values: (Value | undefined)[] = [draft.weight.value, draft.bias?.value];
  const third = draft.outDim / 3;
  if (!Number.isInteger(third) || !values.some((value) => IN_PROJECTION.test(value?.name ?? '')))
    return undefined;
  return [0, 1, 2].map((i) => ({
    columns: { start: i * third, end: (i + 1) * third },
    x: draft.x,
    y: undefined,
  }));
}

function partsOf({ draft, callOf }: NamedDraft, whole: LinearSite, taken: Set<string>): LinearSite[] {
  const parts = draft.kind === 'linear' ? partsFor(draft) : undefined;
  if (parts === undefined) return [];
  const first = callOf === undefined ? undefined : partPaths(callOf, parts.length);
  const suffix = callOf === undefined ? '' : whole.path.slice(callOf.length);
  return partPaths(callOf ?? whole.path, parts.length).map((base, i) => {
    const part = parts[i] as NonNullable<(typeof parts)[number]>;
    let path = `${base}${suffix}`;
    // A name beside the packed one may belong to a real module.
    if (taken.has(path)) path = `${whole.path}.${base.split('.').at(-1) ?? i}`;
    taken.add(path);
    const { bias, callOf: _call, ...rest } = whole;
    return {
      ...rest,
      path,
      packedIn: whole.path,
      x: part.x,
      y: part.y,
      ...(part.range === undefined ? {} : { range: part.range }),
      weight: { ...whole.weight, columns: part.columns },
      outDim: part.columns.end - part.columns.start,
      ...(bias === undefined
        ? {}
        : {
            bias: {
              ...bias,
              included: bias.included || part.biased === true,
              columns: shifted(part.columns, bias.columns?.start),
            },
          }),
      ...(first?.[i] === undefined ? {} : { callOf: first[i] }),
    };
  });
}

/** Columns of a part within the bias vector, of which the whole may itself be a range. */
function shifted({ start, end }: ColumnRange, by = 0): ColumnRange {
  return { start: start + by, end: end + by };
}
