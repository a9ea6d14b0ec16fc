/**
 * Replaces quantised weights of sites by floats: a product in integers becomes `MatMul` with a float matrix, and a
 * `DequantizeLinear` of a constant becomes that constant. The graph is another one afterwards, for these sites.
 */
import { fail } from '../../src/errors.js';
import { type Graph, type Node, Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Tensor } from '../../src/tensor.js';
import { tensorType } from '../../src/types.js';
import type { Edit } from '../edit.js';
import { unusedWith } from '../normalize/rewrite.js';
import { definePass } from '../pass.js';
import { runPasses } from '../runner.js';
import { payloadOf } from '../sites/payload.js';
import type { Site, WeightSite } from '../sites/site.js';
import { claimName, valueNames } from '../value-names.js';
import type { QuantizedMatrix, QuantizedProduct, Refusal } from './matrix.js';
import { dequantizedMatrix, isRefusal, quantizedProduct } from './products.js';
import { dropUnused, usedInitializers } from './unused.js';

/** Floats of a quantised matrix, as they are to be stored. */
export interface DequantizedWeight {
  readonly site: WeightSite;
  readonly from: QuantizedMatrix;
  /** The float initializer, [in, out], or of the dims of the codes behind a DequantizeLinear. */
  readonly to: Value;
  /** The floats are the transpose of the stored matrix. */
  readonly flipped: boolean;
  /** What the graph has now instead of what, for reports: one for each operator that read the matrix. */
  readonly changes: readonly string[];
  /** Names of the nodes that read it, with the paths of their modules. */
  readonly readers: ReadonlyMap<string, string>;
}

/** Makes the payload of a float weight; given by `runtime`, which reads bytes. */
export type Dequantizer = (matrix: QuantizedMatrix, dims: readonly number[], flipped: boolean) => Tensor;

/** The stored matrix of a site whose weight is quantised; a refusal says why it cannot be read. */
export function quantizedMatrixOf(site: Site): QuantizedMatrix | Refusal {
  const none: Refusal = {
    message: 'The weight is quantised in a form that is not read here',
    remedy: 'Keep the adapter as a branch (--quantised keep)',
  };
  if (site.kind !== 'linear' && site.kind !== 'embedding') return none;
  const behind = constantBehind(site);
  return (
    (behind === undefined ? undefined : dequantizedMatrix(behind)) ??
    quantizedProduct(site.node)?.weight ??
    none
  );
}

/**
 * Dequantises the weights of `sites`, each tensor once however many operators read it, and changes the model in place;
 * integers that nothing reads any more are dropped.
 * @throws E_UNSUPPORTED naming the site where a weight cannot be read.
 */
export function dequantizeSites(
  model: Model,
  sites: readonly WeightSite[],
  dequantizer: Dequantizer,
): DequantizedWeight[] {
  const made = new Map<string, Made>();
  const taken = valueNames(model);
  const done = new Set<Node>();
  const pass = definePass({
    name: 'dequantise',
    summary: 'Replaces quantised weights by floats',
    *run() {
      const before = usedInitializers(model);
      for (const site of sites) {
        const from = quantizedMatrixOf(site);
        if (isRefusal(from)) fail('E_UNSUPPORTED', { ...from, where: site.path });
        const behind = constantBehind(site);
        const node = behind ?? site.node;
        const product = behind === undefined ? quantizedProduct(site.node) : undefined;
        const home = homeOf(model, from.codes, node);
        const path = wholePath(site);
        const key = `${home.id} ${product === undefined} ${identityOf(from)}`;
        let weight = made.get(key);
        if (weight === undefined) {
          const flipped = product?.transposed ?? false;
          const dims =
            product === undefined ? (payloadOf(from.codes)?.dims ?? []) : [product.inDim, product.outDim];
          const to = weightValue(claimName(`${path}.weight`, taken), dequantizer(from, dims, flipped));
          weight = { site, from, to, flipped, changes: [], readers: new Map() };
          made.set(key, weight);
          yield { label: `dequantise ${to.label}`, graph: home.graph, addInitializers: [to] };
        }
        // Weights are named after the first module that reads them; others are known by their nodes.
        const name = site.node.name ?? (path === wholePath(weight.site) ? undefined : path);
        if (name !== undefined) weight.readers.set(name, path);
        if (done.has(node)) continue;
        done.add(node);
        const { edit, change } =
          product === undefined
            ? ofConstant(model, node, weight.to)
            : ofProduct(model, product, weight.to, name);
        weight.changes.push(change);
        yield edit;
      }
      yield* dropUnused(model, before);
    },
  });
  runPasses(model, [pass]);
  return [...made.values()];
}

/** A weight whose readers are still being found. */
interface Made extends DequantizedWeight {
  readonly changes: string[];
  readonly readers: Map<string, string>;
}

/** The graph that holds the codes: floats in their place are seen by all who see those. */
function homeOf(model: Model, codes: Value, reader: Node): { readonly graph: Graph; readonly id: number } {
  const graphs = [...walkGraphs(model.graph)];
  const own = codes.producer?.graph ?? graphs.find(({ initializers }) => initializers.has(codes));
  const graph = own ?? reader.graph ?? model.graph;
  return { graph, id: graphs.indexOf(graph) };
}

/** Equal for matrices of the same numbers: the same tensors, read the same way. */
function identityOf(matrix: QuantizedMatrix): string {
  const { rows, columns, transposed, stride, packing, table, zeroPoints, defaultZero, groups } = matrix;
  const tensors = [matrix.codes.id, matrix.scales.id, zeroPoints?.value.id];
  const grouping = [groups, matrix.label, matrix.group(0, 1), matrix.group(1, 0)];
  return JSON.stringify([tensors, rows, columns, transposed, stride, packing, table, defaultZero, grouping]);
}

/** The DequantizeLinear between a site and its stored weight. */
function constantBehind({ weight }: WeightSite): Node | undefined {
  return weight.chain.find((node) => dequantizedMatrix(node) !== undefined);
}

/** Path of the weight's owner: that of the whole for a column range, that of the first for another call. */
export function wholePath(site: WeightSite): string {
  const path = (site.kind === 'linear' ? site.packedIn : undefined) ?? site.path;
  return site.callOf === undefined ? path : path.replace(/#\d+$/, '');
}

/** An operator that reads floats now. */
interface Change {
  readonly edit: Edit;
  /** In words. */
  readonly change: string;
}

function weightValue(name: string, tensor: Tensor): Value {
  return new Value({ name, type: tensorType(tensor.dtype, tensor.dims), tensor });
}

/** The constant in place of a DequantizeLinear. */
function ofConstant(model: Model, node: Node, to: Value): Change {
  return {
    change: `${node.label} is the float tensor '${to.label}'`,
    edit: {
      label: `dequantise ${to.label}`,
      graph: node.graph ?? model.graph,
      redirect: [{ from: node.output(0), to }],
      remove: [node],
    },
  };
}

/** `MatMul(x, W)`, and an Add where the operator added a bias. */
function ofProduct(
  model: Model,
  { node, x, y, bias }: QuantizedProduct,
  to: Value,
  name: string | undefined,
): Change {
  const b = new Builder(model, { provenance: 'dequantise' });
  let made = b.op.MatMul(x, to);
  const product = made.producer as Node;
  product.name = name;
  for (const [key, text] of node.metadata) product.metadata.set(key, text);
  if (bias !== undefined) made = b.op.Add(made, node.input(bias));
  made.name = y.name;
  const root = y.producer ?? node;
  const kept = new Set<Value>([x, ...(bias === undefined ? [] : [node.input(bias)])]);
  return {
    change: `${node.label} is MatMul with the float tensor '${to.label}'`,
    edit: {
      label: `dequantise ${to.label}`,
      graph: root.graph ?? model.graph,
      redirect: [{ from: y, to: made }],
      add: { nodes: b.nodes, at: { before: root } },
      addInitializers: b.initializers,
      remove: unusedWith(root, kept),
    },
  };
}
