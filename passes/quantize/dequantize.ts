/**
 * Replaces quantised weights of sites by floats: a product in integers becomes `MatMul` with a float matrix, and a
 * `DequantizeLinear` of a constant becomes that constant. The graph is another one afterwards, for these sites.
 */
import { fail } from '../../src/errors.js';
import { type Node, Value } from '../../src/graph.js';
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
  /** What the graph has now instead of what, for reports. */
  readonly change: string;
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
 * Dequantises the weights of `sites`, each tensor once, and changes the model in place; integers that nothing reads any
 * more are dropped.
 * @throws E_UNSUPPORTED naming the site where a weight cannot be read.
 */
export function dequantizeSites(
  model: Model,
  sites: readonly WeightSite[],
  dequantizer: Dequantizer,
): DequantizedWeight[] {
  const made: DequantizedWeight[] = [];
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
        if (done.has(node)) continue;
        done.add(node);
        const name = claimName(`${wholePath(site)}.weight`, taken);
        const product = behind === undefined ? quantizedProduct(site.node) : undefined;
        const change =
          product === undefined
            ? ofConstant(model, node, from, name, dequantizer)
            : ofProduct(model, product, from, name, dequantizer);
        made.push({ site, from, to: change.to, flipped: change.flipped, change: change.change });
        yield change.edit;
      }
      yield* dropUnused(model, before);
    },
  });
  runPasses(model, [pass]);
  return made;
}

/** The DequantizeLinear between a site and its stored weight. */
function constantBehind({ weight }: WeightSite): Node | undefined {
  return weight.chain.find((node) => dequantizedMatrix(node) !== undefined);
}

/** Path of the weight's owner: that of the whole for a column range. */
export function wholePath(site: WeightSite): string {
  return (site.kind === 'linear' ? site.packedIn : undefined) ?? site.path;
}

type Change = Pick<DequantizedWeight, 'to' | 'flipped' | 'change'> & { readonly edit: Edit };

function weightValue(name: string, tensor: Tensor): Value {
  return new Value({ name, type: tensorType(tensor.dtype, tensor.dims), tensor });
}

/** The constant behind a DequantizeLinear. */
function ofConstant(
  model: Model,
  node: Node,
  from: QuantizedMatrix,
  name: string,
  dequantizer: Dequantizer,
): Change {
  const dims = payloadOf(node.input(0))?.dims ?? [];
  const to = weightValue(name, dequantizer(from, dims, false));
  const change = `${node.label} is the float tensor '${name}'`;
  return {
    to,
    flipped: false,
    change,
    edit: {
      label: `dequantise ${name}`,
      graph: node.graph ?? model.graph,
      redirect: [{ from: node.output(0), to }],
      addInitializers: [to],
      remove: [node],
    },
  };
}

/** `MatMul(x, W)`, and an Add where the operator added a bias. */
function ofProduct(
  model: Model,
  { node, x, y, bias, inDim, outDim, transposed }: QuantizedProduct,
  from: QuantizedMatrix,
  name: string,
  dequantizer: Dequantizer,
): Change {
  const to = weightValue(name, dequantizer(from, [inDim, outDim], transposed));
  const b = new Builder(model, { provenance: 'dequantise' });
  let made = b.op.MatMul(x, to);
  const product = made.producer as Node;
  product.name = node.name;
  for (const [key, text] of node.metadata) product.metadata.set(key, text);
  if (bias !== undefined) made = b.op.Add(made, node.input(bias));
  made.name = y.name;
  const root = y.producer ?? node;
  const kept = new Set<Value>([x, ...(bias === undefined ? [] : [node.input(bias)])]);
  return {
    to,
    flipped: transposed,
    change: `${node.label} is MatMul with the float tensor '${name}'`,
    edit: {
      label: `dequantise ${name}`,
      graph: root.graph ?? model.graph,
      redirect: [{ from: y, to: made }],
      add: { nodes: b.nodes, at: { before: root } },
      addInitializers: [to, ...b.initializers],
      remove: unusedWith(root, kept),
    },
  };
}
