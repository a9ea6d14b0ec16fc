/** Small graphs by hand, and the check that a site's view is what ONNX Runtime computes. */
import ort from 'onnxruntime-node';
import { expect } from 'vitest';
import type { LinearSite } from '../../passes/sites/index.js';
import { payloadOf } from '../../passes/sites/index.js';
import type { Attribute } from '../../src/attribute.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { type DType, type Shape, tensorType } from '../../src/types.js';
import { numbers, runModel } from '../helpers/run.js';

/** Deterministic numbers in (-1, 1) that no symmetry maps to themselves. */
export function irregular(count: number, seed = 1): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(12.9898 * (i + 1) + 78.233 * seed) * 0.9);
}

export function floats(dims: readonly number[], seed = 1): Tensor {
  const values = irregular(
    dims.reduce((a, b) => a * b, 1),
    seed,
  );
  return tensorOfBytes('float32', dims, new Uint8Array(values.buffer));
}

export function ints(values: readonly number[], dims: readonly number[] = [values.length]): Tensor {
  return tensorOfBytes('int64', dims, new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer));
}

/** A model under construction; every method appends to its graph. */
export class Sketch {
  readonly model: Model;
  readonly graph: Graph;

  constructor(opset = 17, graph = new Graph()) {
    this.graph = graph;
    this.model = new Model(graph);
    this.model.irVersion = 8;
    this.model.opsets.set('', opset);
  }

  input(name: string, shape: Shape, dtype: DType = 'float32'): Value {
    return this.graph.addInput(new Value({ name, type: tensorType(dtype, shape) }));
  }

  weight(name: string, tensor: Tensor): Value {
    const type = tensorType(tensor.dtype, tensor.dims);
    return this.graph.addInitializer(new Value({ name, tensor, type }));
  }

  node(
    op: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, Attribute>> = {},
    extra: { name?: string; domain?: string; outputs?: readonly string[]; shape?: Shape } = {},
  ): Value {
    return this.nodes(op, inputs, attributes, extra)[0] as Value;
  }

  nodes(
    op: string,
    inputs: readonly (Value | null)[],
    attributes: Readonly<Record<string, Attribute>> = {},
    extra: { name?: string; domain?: string; outputs?: readonly string[]; shape?: Shape } = {},
  ): Value[] {
    const names = extra.outputs ?? [`${op}_${this.graph.nodeCount}_out`];
    const outputs = names.map((name) => new Value({ name }));
    const domain = extra.domain ?? '';
    if (domain !== '') this.model.opsets.set(domain, 1);
    const node = new Node({
      op,
      domain,
      inputs,
      outputs,
      attributes: Object.entries(attributes),
      ...(extra.name === undefined ? {} : { name: extra.name }),
    });
    this.graph.append(node);
    if (extra.shape !== undefined)
      for (const value of outputs) value.type = tensorType('float32', extra.shape);
    return outputs;
  }

  output(value: Value, shape: Shape): this {
    value.type = tensorType('float32', shape);
    this.graph.addOutput(value.name, value);
    return this;
  }
}

/** Numbers behind a float32 payload. */
function values(value: Value): number[] {
  const tensor = payloadOf(value);
  if (tensor === undefined) throw new Error(`${value.label} holds no numbers`);
  const bytes = tensor.data.read(0, tensor.data.byteLength);
  return [...new Float32Array(bytes.slice().buffer)];
}

/** The site's [in, out] matrix, column range and scale applied, from the stored payload. */
export function matrixOf(site: LinearSite): number[][] {
  const stored = values(site.weight.value);
  const total = stored.length / site.inDim;
  const { start, end } = site.weight.columns ?? { start: 0, end: total };
  return Array.from({ length: site.inDim }, (_, i) =>
    Array.from({ length: end - start }, (_, j) => {
      const column = start + j;
      const at = site.weight.transposed ? column * site.inDim + i : i * total + column;
      return (stored[at] ?? Number.NaN) * site.weight.scale;
    }),
  );
}

/** Elements of a tensor as rows of features, with axis `axis` moved last. */
function rows(data: readonly number[], dims: readonly number[], axis: number): number[][] {
  const at = axis < 0 ? axis + dims.length : axis;
  const features = dims[at] ?? 1;
  const inner = dims.slice(at + 1).reduce((a, b) => a * b, 1);
  const outer = data.length / features / inner;
  const found: number[][] = [];
  for (let o = 0; o < outer; o++)
    for (let k = 0; k < inner; k++)
      found.push(
        Array.from({ length: features }, (_, f) => data[(o * features + f) * inner + k] ?? Number.NaN),
      );
  return found;
}

/** Runs the model and checks y = x W + b with the site's own x, W, b and y. Sites without an output are refused. */
export async function expectLinear(
  sketch: Sketch,
  site: LinearSite,
  feeds: Readonly<Record<string, ort.Tensor>>,
): Promise<void> {
  const { y } = site;
  if (y === undefined) throw new Error(`${site.path} has no output`);
  const { graph } = sketch;
  for (const value of [site.x, y])
    if (!graph.inputs.includes(value) && !graph.outputs.some((output) => output.value === value))
      graph.addOutput(value.name, value);
  const results = await runModel(sketch.model, feeds);
  const tensor = (value: Value): ort.Tensor => {
    const found = results[value.name ?? ''] ?? feeds[value.name ?? ''];
    if (found === undefined) throw new Error(`no result ${value.label}`);
    return found;
  };
  const [x, out] = [tensor(site.x), tensor(y)];
  const matrix = matrixOf(site);
  const bias = site.bias?.included === true ? values(site.bias.value) : undefined;
  const offset = site.bias?.columns?.start ?? 0;
  const expected = rows(numbers(x), x.dims, site.xAxis).map((row) =>
    Array.from(
      { length: site.outDim },
      (_, j) =>
        row.reduce((sum, v, i) => sum + v * (matrix[i]?.[j] ?? Number.NaN), 0) +
        (bias?.[offset + j] ?? 0) * (site.bias?.scale ?? 1),
    ),
  );
  const actual = rows(numbers(out), out.dims, site.yAxis);
  expect(actual.length).toBe(expected.length);
  // Sums of inDim products below 1 in float32.
  const tolerance = site.inDim * 2 ** -22;
  for (const [i, row] of expected.entries())
    for (const [j, value] of row.entries())
      expect(Math.abs((actual[i]?.[j] ?? Number.NaN) - value)).toBeLessThan(tolerance);
}

export function feed(dims: readonly number[], seed = 9): ort.Tensor {
  const size = dims.reduce((a, b) => a * b, 1);
  return new ort.Tensor('float32', irregular(size, seed), [...dims]);
}
