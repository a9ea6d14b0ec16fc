/** Sites without a matrix of their own, and the roles of linears: everything that is read off the structure of a graph. */
import type { Node } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { isModuleOfProjections } from '../packed-names.js';
import { moduleOfNode } from '../paths/name-scopes.js';
import { pathOfScopedName } from '../paths/scopes.js';
import type {
  AttentionSite,
  EmbeddingSite,
  LinearRole,
  LinearSite,
  NormSite,
  PositionSite,
  PromptSite,
  SublayerSite,
  WeightSite,
} from '../site.js';
import { type AttentionCore, detectAttention } from './attention.js';
import { type Linears, linearsOf } from './linears.js';
import { commonModule, leastConfidence, Namer } from './names.js';
import { detectPositions, type Positions } from './positions.js';
import { detectPrompt } from './prompt.js';
import { attentionRoles, feedForwardRoles } from './roles.js';
import { type Block, detectSublayers } from './sublayers.js';

export type StructuralSite = SublayerSite | AttentionSite | PositionSite | PromptSite;

export interface Structure {
  readonly sites: readonly StructuralSite[];
  readonly roles: ReadonlyMap<LinearSite, LinearRole>;
}

/** Reads the structure around the weights of a model. `order`: nodes of all graphs in order of execution. */
export function structureOf(
  model: Model,
  weights: readonly WeightSite[],
  norms: readonly NormSite[],
  order: readonly Node[],
): Structure {
  const places = new Map(order.map((node, i) => [node, i] as const));
  const linears = linearsOf(
    weights.filter((site) => site.kind === 'linear').filter(({ weight }) => weight.slice === undefined),
    places,
  );
  const embeddings = weights.filter((site) => site.kind === 'embedding');
  const cores = order.map((node) => detectAttention(node, linears)).filter((core) => core !== undefined);
  const roles = attentionRoles(cores, linears);
  const blocks = detectSublayers(order, { linears, norms, cores });
  for (const { site, last } of blocks)
    if (site.role === 'feed-forward' && last !== undefined) feedForwardRoles(last, linears, roles);
  return {
    roles,
    sites: [
      ...attentionSites(cores, linears),
      ...sublayerSites(blocks),
      ...positionSites(order, embeddings),
      ...promptSites(model, embeddings),
    ],
  };
}

function attentionSites(cores: readonly AttentionCore[], { wholes }: Linears): AttentionSite[] {
  const namer = new Namer();
  return cores.flatMap(({ site, node, query, key, value }, i): AttentionSite[] => {
    if (site === undefined) return [];
    const around = [query, key, value]
      .filter((one) => one !== undefined)
      .map((one) =>
        one.packedIn === undefined || isModuleOfProjections(one.packedIn)
          ? one
          : (wholes.get(one.packedIn) ?? one),
      );
    const again = around.length > 0 && around.every(({ callOf }) => callOf !== undefined);
    const module = commonModule(around);
    if (module !== '')
      return [{ ...site, ...namer.name(module, leastConfidence(around), 'projections', again) }];
    const scope = scopeOf(node);
    if (scope !== undefined) return [{ ...site, ...namer.name(scope, 0.8, 'scope') }];
    return [{ ...site, ...namer.name(`attention.${i}`, 0.1, 'structure') }];
  });
}

function sublayerSites(blocks: readonly Block[]): SublayerSite[] {
  const namer = new Namer();
  const modules = blocks.map(({ linears }) => commonModule(linears));
  return blocks.map(({ site, linears }, i): SublayerSite => {
    const module = modules[i] as string;
    const again = linears.every(({ callOf }) => callOf !== undefined);
    // A module that holds another block too is the layer, and not the block.
    const wide =
      module === '' ||
      modules.some(
        (other, k) =>
          k !== i &&
          (other.startsWith(`${module}.`) || (other === module && blocks[k]?.site.role !== site.role)),
      );
    const own = site.role === 'attention' ? 'attention' : 'ffn';
    const path = module === '' ? `${own}.${i}` : wide ? `${module}.${own}` : module;
    const confidence = module === '' ? 0.1 : leastConfidence(linears);
    return {
      ...site,
      ...namer.name(path, confidence, module === '' ? 'structure' : 'linears of the block', again),
    };
  });
}

/** Absolute positions are named beside the table that is looked up, rotary ones after the module that has the angles. */
function positionSites(order: readonly Node[], embeddings: readonly EmbeddingSite[]): PositionSite[] {
  const namer = new Namer();
  const found: PositionSite[] = [];
  const seen = new Set<Node>();
  for (const node of order)
    for (const positions of detectPositions(node)) {
      // Sines and cosines are computed of the same angles.
      if (seen.has(positions.node) || positions.node.graph === undefined) continue;
      seen.add(positions.node);
      const table = embeddings.find((embedding) => embedding.node === positions.node);
      const dtype = dtypeOfReading(positions);
      if (dtype === undefined) continue;
      const [path, confidence, source] =
        table === undefined
          ? [
              scopeOf(positions.node) ?? 'positions',
              scopeOf(positions.node) === undefined ? 0.1 : 0.8,
              'scope',
            ]
          : [beside(table.callOf ?? table.path, 'position_ids'), table.confidence, 'table'];
      found.push({
        kind: 'position',
        node: positions.node,
        input: positions.index,
        graph: positions.node.graph,
        dtype,
        ...namer.name(path, confidence, source),
      });
    }
  return found;
}

function dtypeOfReading({ node, index }: Positions): PositionSite['dtype'] | undefined {
  const { type } = node.input(index);
  return type?.kind === 'tensor' ? type.dtype : undefined;
}

function beside(path: string, name: string): string {
  return [...path.split('.').slice(0, -1), name].join('.');
}

function promptSites(model: Model, embeddings: readonly EmbeddingSite[]): PromptSite[] {
  const found = detectPrompt(
    model.graph,
    embeddings.filter(({ graph }) => graph === model.graph),
  );
  if (found === undefined) return [];
  const { site, embedding } = found;
  const namer = new Namer();
  return [{ ...site, ...namer.name(`${embedding.path}.prompt`, embedding.confidence, 'table') }];
}

/** The module a node lies in, by its metadata or its name. */
function scopeOf(node: Node): string | undefined {
  const scope = moduleOfNode(node) ?? pathOfScopedName(node.name);
  return scope === '' ? undefined : scope;
}
