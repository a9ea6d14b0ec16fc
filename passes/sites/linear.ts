/** What all detectors of linear sites share: the weight's view, the bias behind the output, packed projections. */
import { fail } from '../../src/errors.js';
import type { Graph, Node, Value } from '../../src/graph.js';
import { isFloat } from '../../src/types.js';
import { joinedBias } from './bias.js';
import type { LinearDraft } from './draft.js';
import { packedParts } from './packed.js';
import type { SiteBias, WeightView } from './site.js';
import { payloadTransposed, traceConstant } from './weight.js';

/** The weight that input `index` of `node` reads, as a matrix; undefined when it is no constant matrix. */
export interface LinearWeight {
  readonly view: WeightView;
  readonly inDim: number;
  readonly outDim: number;
  readonly dtype: LinearDraft['dtype'];
  /** Axes of the value the op reads. */
  readonly rank: number;
}

export interface WeightOptions {
  /** The op reads [out, in] (`transB`, Conv). */
  readonly transposed: boolean;
  readonly scale?: number;
  /** Rows and columns of the value the op reads; default: its two axes, further ones being 1. */
  readonly matrix?: (dims: readonly number[]) => readonly [number, number] | undefined;
}

export function linearWeight(node: Node, index: number, options: WeightOptions): LinearWeight | undefined {
  const consumed = node.inputs[index];
  if (consumed === null || consumed === undefined) return undefined;
  const constant = traceConstant(consumed);
  if (constant === undefined || !isFloat(constant.dtype)) return undefined;
  const matrix = options.matrix?.(constant.dims) ?? asMatrix(constant.dims, options.transposed);
  if (matrix === undefined) return undefined;
  const [rows, columns] = matrix;
  const flipped = payloadTransposed(constant, rows);
  if (flipped === undefined) return undefined;
  return {
    view: {
      value: constant.value,
      transposed: flipped !== options.transposed,
      scale: options.scale ?? 1,
      consumed,
      consumedTransposed: options.transposed,
      input: index,
      chain: constant.chain,
      storage: constant.storage,
    },
    inDim: options.transposed ? columns : rows,
    outDim: options.transposed ? rows : columns,
    dtype: constant.dtype,
    rank: constant.dims.length,
  };
}

/** Rows and columns of a rank-2 weight; batch axes of size 1 and the window of a 1×1 Conv are dropped. */
function asMatrix(dims: readonly number[], transposed: boolean): readonly [number, number] | undefined {
  const extra = transposed ? dims.slice(2) : dims.slice(0, -2);
  const [rows, columns] = transposed ? dims : dims.slice(-2);
  if (rows === undefined || columns === undefined || extra.some((dim) => dim !== 1)) return undefined;
  return rows === 0 || columns === 0 ? undefined : [rows, columns];
}

export interface LinearParts {
  readonly node: Node;
  readonly x: Value;
  readonly xAxis?: number;
  readonly y: Value;
  readonly yAxis?: number;
  readonly weight: LinearWeight;
  /** The bias the op itself adds. */
  readonly bias?: SiteBias;
}

/** A linear draft: takes in the bias Add behind `y` and the Split or Slices behind that. */
export function linearDraft(init: LinearParts): LinearDraft {
  const { node, x, weight } = init;
  const { inDim, outDim } = weight;
  const xAxis = init.xAxis ?? -1;
  const yAxis = init.yAxis ?? -1;
  const joined =
    init.bias === undefined
      ? joinedBias(init.y, outDim, yAxis === -1 ? 0 : weight.rank - 1 - yAxis)
      : undefined;
  const y = joined?.y ?? init.y;
  const bias = init.bias ?? joined?.bias;
  const parts = packedParts({
    x,
    y: joined?.biased ?? y,
    biased: joined?.biased !== undefined,
    inDim,
    outDim,
    plain: xAxis === -1 && yAxis === -1,
  });
  return {
    kind: 'linear',
    node,
    graph: graphOf(node),
    dtype: weight.dtype,
    x,
    xAxis,
    y,
    yAxis,
    weight: weight.view,
    inDim,
    outDim,
    ...(bias === undefined ? {} : { bias }),
    ...(parts === undefined ? {} : { parts }),
  };
}

export function graphOf(node: Node): Graph {
  return node.graph ?? fail('E_INVALID_GRAPH', { message: 'The node is in no graph', where: node.label });
}
