/** An estimate of the memory that a graph takes in ONNX Runtime, before anything runs. */
import { intAttribute } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import type { Graph, Node, Value } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { byteSize, countOf } from '../../src/types.js';
import { peakOf } from './liveness.js';
import { executionOrder } from './schedule.js';
import { type DimSizes, ValueSizes } from './sizes.js';

export interface MemoryOptions {
  /** A number for every symbolic dimension of the inputs. */
  readonly sizes: DimSizes;
  /** Whether the session packs constant factors of matrix products (its default). */
  readonly prepack?: boolean;
}

/** All in bytes. */
export interface MemoryPlan {
  /** Constants of the graph. */
  readonly weights: number;
  /** Copies of them in the layout of the matrix product kernels of the CPU. */
  readonly packed: number;
  /** Inputs and outputs: batch, parameters, optimizer state. */
  readonly carried: number;
  /** Most that intermediate values hold at once. */
  readonly activations: number;
  /** What the allocator holds besides, for rounding and gaps. */
  readonly gaps: number;
  /** Where that is. */
  readonly peakAt: string;
  /** Node and ONNX Runtime on the CPU with one session and no model. */
  readonly runtime: number;
  readonly total: number;
  /** Intermediate values whose size is not known; they count as nothing. */
  readonly unknown: number;
}

/** Measured on Node 20 with onnxruntime-node 1.30: 79 MiB before the first session, about 90 with one of a tiny model. */
const RUNTIME = 90 * 2 ** 20;

/** Share of the activations that the arena holds besides: rounding, and gaps that nothing fits into. Measured. */
const GAPS = 0.12;

const PACKING: ReadonlySet<string> = new Set(['Gemm', 'MatMul']);

/** Estimates the peak of one session. Throws E_USAGE when a symbolic dimension of an input has no size. */
export function planMemory(model: Model, options: MemoryOptions): MemoryPlan {
  const { graph } = model;
  checkComplete(graph, options.sizes);
  inferModel(model);
  const sizes = new ValueSizes(options.sizes);
  const constants = [...graph.initializers];
  const weights = sum(constants, storedBytes);
  const packed = options.prepack === false ? 0 : sum(constants, packedBytes);
  const inputs = graph.inputs.filter(({ tensor }) => tensor === undefined);
  const carried = sum(
    [...inputs, ...graph.outputs.map(({ value }) => value)],
    (value) => sizes.bytes(value) ?? 0,
  );
  const peak = peakOf(graph, executionOrder(graph), sizes);
  const gaps = Math.round(GAPS * peak.bytes);
  return {
    weights,
    packed,
    carried,
    activations: peak.bytes,
    gaps,
    peakAt: peak.node === undefined ? '' : peak.node.label,
    runtime: RUNTIME,
    total: weights + packed + carried + peak.bytes + gaps + RUNTIME,
    unknown: peak.unknown.length,
  };
}

/** Names of the symbolic dimensions of the inputs, in order of appearance. */
export function symbolsOf(graph: Graph): string[] {
  const symbols = new Set<string>();
  for (const { type, tensor } of graph.inputs)
    if (tensor === undefined && type?.kind === 'tensor')
      for (const dim of type.shape ?? []) if (typeof dim === 'string') symbols.add(dim);
  return [...symbols];
}

function checkComplete(graph: Graph, sizes: DimSizes): void {
  const symbols = symbolsOf(graph);
  const missing = symbols.filter((symbol) => !sizes.has(symbol));
  if (missing.length > 0)
    fail('E_USAGE', {
      message: `No size for ${missing.join(', ')}`,
      where: 'dimensions of the inputs',
      remedy: `Give a number for each of ${symbols.join(', ')}`,
    });
}

/** Throws E_USAGE for a size of a dimension that no input of the graphs has. */
export function checkSymbols(models: readonly Model[], sizes: DimSizes): void {
  const symbols = new Set(models.flatMap(({ graph }) => symbolsOf(graph)));
  const strange = [...sizes.keys()].filter((name) => !symbols.has(name));
  if (strange.length > 0)
    fail('E_USAGE', {
      message: `No input has a dimension ${strange.join(', ')}`,
      remedy:
        symbols.size === 0
          ? 'All dimensions are fixed: leave it out'
          : `There are ${[...symbols].join(', ')}`,
    });
}

/** Peak of a process that holds sessions of all the graphs and runs one at a time. */
export function sharedPeak(plans: readonly MemoryPlan[]): number {
  const held = plans.reduce((bytes, { weights, packed }) => bytes + weights + packed, 0);
  const running = plans.map(({ carried, activations, gaps }) => carried + activations + gaps);
  return RUNTIME + held + Math.max(0, ...running);
}

function sum(values: readonly Value[], bytes: (value: Value) => number): number {
  return values.reduce((total, value) => total + bytes(value), 0);
}

function storedBytes({ tensor }: Value): number {
  if (tensor === undefined) return 0;
  return byteSize(tensor.dtype, countOf(tensor.dims));
}

/** Products of one form share a packed copy; the original goes when all of its readers have one. */
function packedBytes(value: Value): number {
  if (value.tensor?.dtype !== 'float32' || value.tensor.dims.length !== 2) return 0;
  const readers = [...value.uses];
  const packing = readers.flatMap((use) =>
    use.kind === 'node' && packs(use.node, use.index) ? [use.node] : [],
  );
  const copies = new Set(packing.map(formOf)).size;
  return (copies > 0 && packing.length === readers.length ? copies - 1 : copies) * storedBytes(value);
}

/** What decides the layout of a packed factor. */
function formOf(node: Node): string {
  return `${node.op} ${intAttribute(node, 'transB', 0)}`;
}

function packs(node: Node, index: number): boolean {
  return node.domain === '' && PACKING.has(node.op) && index === 1;
}
