/**
 * Quantises the weights of linears: products with floats become products with integers, everything else stays. The
 * numbers are computed by `runtime`, which reads bytes; here are the graph and the shapes.
 */
import { floatAttribute } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import { type Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Tensor, TensorData } from '../../src/tensor.js';
import { byteSize, countOf, type DType, tensorType } from '../../src/types.js';
import type { Edit } from '../edit.js';
import { unusedWith } from '../normalize/rewrite.js';
import { definePass } from '../pass.js';
import { runPasses } from '../runner.js';
import { payloadOf } from '../sites/payload.js';
import type { LinearSite } from '../sites/site.js';
import { claimName, valueNames } from '../value-names.js';
import type { PartSpec, ProductSizes, QuantizedParts, QuantizeFormat, QuantizeSettings } from './formats.js';
import type { QuantizedMatrix } from './matrix.js';
import { dequantizedMatrix, isRefusal, quantizedProduct } from './products.js';
import { dropUnused, usedInitializers } from './unused.js';

/** The floats of a weight, as they are stored. */
export interface FloatSource {
  readonly value: Value;
  readonly tensor: Tensor;
  readonly inDim: number;
  readonly outDim: number;
  /** Dtype of what it is multiplied with. */
  readonly dtype: DType;
  /** The payload is [out, in]. */
  readonly transposed: boolean;
  /** The weight is the payload times this. */
  readonly scale: number;
}

/** Payloads of one quantised weight, computed together. */
export interface QuantizedPayloads {
  data(part: keyof QuantizedParts, byteLength: number): TensorData;
  /** What the tensors are, known once they have a graph around them. */
  bind(matrix: QuantizedMatrix): void;
}

export interface QuantizedSite {
  readonly paths: readonly string[];
  readonly source: FloatSource;
  readonly matrix: QuantizedMatrix;
  readonly parts: QuantizedParts;
  readonly payloads: QuantizedPayloads;
}

export interface QuantizeResult {
  readonly quantized: readonly QuantizedSite[];
  /** Modules that stay floats, and why. */
  readonly skipped: readonly { readonly path: string; readonly reason: string }[];
}

/** Changes the model in place. @throws E_USAGE for a block size or zero points that the format lacks. */
export function quantizeSites(
  model: Model,
  sites: readonly LinearSite[],
  format: QuantizeFormat,
  settings: QuantizeSettings,
  payloads: (source: FloatSource) => QuantizedPayloads,
): QuantizeResult {
  checkSettings(format, settings);
  const taken = valueNames(model);
  const made = new Map<Value, Mutable<QuantizedSite>[]>();
  const skipped: { path: string; reason: string }[] = [];
  const pass = definePass({
    name: 'quantise',
    summary: 'Replaces products with float weights by products with integers',
    *run() {
      const before = usedInitializers(model);
      for (const site of sites) {
        const sizes: ProductSizes = { inDim: site.inDim, outDim: site.outDim, dtype: site.dtype };
        const reason = unsuitable(model, site, sizes, format, settings);
        if (reason !== undefined) {
          skipped.push({ path: site.path, reason });
          continue;
        }
        const earlier = made.get(site.weight.value) ?? [];
        // Readers that take the transpose, or another multiple, have codes of their own.
        const known = earlier.find(({ source }) => readsAlike(source, site));
        if (known !== undefined) {
          yield replaced(model, site, known.parts, format, sizes, settings).edit;
          known.paths.push(site.path);
          continue;
        }
        const source = sourceOf(site);
        const own = payloads(source);
        const parts = storedParts(site.path, taken, format.parts(sizes, settings), own);
        // In the main graph, which the bodies of control flow see too.
        yield { label: `store ${site.path}`, graph: model.graph, addInitializers: partValues(parts) };
        const { edit, center } = replaced(model, site, parts, format, sizes, settings);
        yield edit;
        const matrix = matrixOf(center);
        own.bind(matrix);
        const one = { paths: [site.path], source, matrix, parts, payloads: own };
        made.set(site.weight.value, [...earlier, one]);
      }
      yield* dropUnused(model, before);
    },
  });
  runPasses(model, [pass]);
  return { quantized: [...made.values()].flat(), skipped };
}

type Mutable<T extends { readonly paths: readonly string[] }> = Omit<T, 'paths'> & { paths: string[] };

function checkSettings({ blocks, asymmetric, summary }: QuantizeFormat, settings: QuantizeSettings): void {
  if (blocks.length > 0 && !blocks.includes(settings.blockSize))
    fail('E_USAGE', {
      message: `Blocks of ${settings.blockSize} are not possible in ${summary}`,
      remedy: `Choose ${blocks.join(', ')}`,
    });
  if (!settings.symmetric && !asymmetric)
    fail('E_USAGE', {
      message: `There are no zero points in ${summary}`,
      remedy: 'Leave out --asymmetric, or choose int4 or int8',
    });
}

function unsuitable(
  model: Model,
  { node, weight, packedIn, xAxis, yAxis, dtype, inDim, outDim }: LinearSite,
  sizes: ProductSizes,
  format: QuantizeFormat,
  settings: QuantizeSettings,
): string | undefined {
  if (weight.storage !== 'dense') return 'it is quantised already';
  if (packedIn !== undefined) return `it is a part of ${packedIn}; name that to quantise all of its parts`;
  if (!['MatMul', 'Gemm', 'com.microsoft.FusedMatMul'].includes(node.qualifiedOp))
    return `its product is in ${node.qualifiedOp}`;
  if (xAxis !== -1 || yAxis !== -1) return 'its features are not on the last axis';
  if (!format.dtypes.includes(dtype)) return `there is no kernel for ${dtype}`;
  if (model.opset('') < format.opset) return `the model's opset is below ${format.opset}`;
  const payload = payloadOf(weight.value);
  if (payload === undefined || countOf(payload.dims) !== inDim * outDim)
    return 'its weight is a part of a larger tensor';
  return format.refuses?.(sizes, settings);
}

function sourceOf({ weight, inDim, outDim, dtype, path }: LinearSite): FloatSource {
  const { value, transposed, scale } = weight;
  const tensor =
    payloadOf(value) ?? fail('E_INVALID_GRAPH', { message: 'The weight holds no numbers', where: path });
  return { value, tensor, inDim, outDim, dtype, transposed, scale };
}

/** Whether a site multiplies by the same matrix as the one that the source was read for. */
function readsAlike(source: FloatSource, { weight, inDim, outDim, dtype }: LinearSite): boolean {
  return (
    source.transposed === weight.transposed &&
    source.scale === weight.scale &&
    source.inDim === inDim &&
    source.outDim === outDim &&
    source.dtype === dtype
  );
}

function partValues({ codes, scales, zeroPoints }: QuantizedParts): Value[] {
  return [codes, scales, ...(zeroPoints === null ? [] : [zeroPoints])];
}

function storedParts(
  path: string,
  taken: Set<string>,
  specs: ReturnType<QuantizeFormat['parts']>,
  payloads: QuantizedPayloads,
): QuantizedParts {
  const value = (part: keyof QuantizedParts, suffix: string, { dtype, dims }: PartSpec): Value => {
    const bytes = byteSize(dtype, countOf(dims));
    const tensor = { dtype, dims, data: payloads.data(part, bytes) };
    const name = claimName(`${path}.weight_${suffix}`, taken);
    return new Value({ name, type: tensorType(dtype, dims), tensor });
  };
  return {
    codes: value('codes', 'quantized', specs.codes),
    scales: value('scales', 'scales', specs.scales),
    zeroPoints: specs.zeroPoints === undefined ? null : value('zeroPoints', 'zero_points', specs.zeroPoints),
  };
}

/** The product, and the bias that a Gemm added. The node in the middle keeps name and marks of the one it replaces. */
function replaced(
  model: Model,
  { node, x, path }: LinearSite,
  parts: QuantizedParts,
  format: QuantizeFormat,
  sizes: ProductSizes,
  settings: QuantizeSettings,
): { readonly edit: Edit; readonly center: Node } {
  const b = new Builder(model, { provenance: 'quantise' });
  const product = format.product(b, x, parts, sizes, settings);
  const center = b.nodes.find((made) => made.inputs.includes(parts.codes)) as Node;
  const named = product.producer as Node;
  named.name = node.name;
  for (const [key, text] of node.metadata) named.metadata.set(key, text);
  const c = node.op === 'Gemm' ? node.inputs[2] : undefined;
  const beta = floatAttribute(node, 'beta', 1);
  const y = c == null ? product : b.op.Add(product, beta === 1 ? c : b.op.Mul(c, beta));
  const from = node.output(0);
  y.name = from.name;
  return {
    center,
    edit: {
      label: `quantise ${path}`,
      graph: node.graph ?? model.graph,
      redirect: [{ from, to: y }],
      add: { nodes: b.nodes, at: { before: node } },
      addInitializers: b.initializers,
      remove: unusedWith(node, new Set([x, ...(c == null ? [] : [c])])),
    },
  };
}

function matrixOf(center: Node): QuantizedMatrix {
  const matrix = quantizedProduct(center)?.weight ?? dequantizedMatrix(center);
  if (matrix === undefined || isRefusal(matrix))
    return fail('E_INVALID_GRAPH', { message: 'A quantised weight is not read back', where: center.label });
  return matrix;
}
