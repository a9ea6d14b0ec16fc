/** Fused ops of ONNX Runtime that took in the bias of the linear that feeds them: which input holds it. */
import type { Node } from '../../src/graph.js';
import type { ColumnRange } from './site.js';
import { traceConstant } from './weight.js';

interface Absorber {
  /** Input slots that a linear's output can feed. */
  readonly from: readonly number[];
  /** Input slot of the bias. */
  readonly bias: number;
  /** Set when the biases of all `from` slots lie side by side in one vector. */
  readonly packed?: boolean;
}

const ABSORBERS: Readonly<Record<string, Absorber>> = {
  // input, skip, gamma, beta, bias
  'com.microsoft.SkipLayerNormalization': { from: [0], bias: 4 },
  // input, skip, gamma, bias
  'com.microsoft.SkipSimplifiedLayerNormalization': { from: [0], bias: 3 },
  'com.microsoft.BiasGelu': { from: [0], bias: 1 },
  'com.microsoft.FastGelu': { from: [0], bias: 1 },
  // query, key, value, bias
  'com.microsoft.MultiHeadAttention': { from: [0, 1, 2], bias: 3, packed: true },
};

export interface FusedBias {
  /** Which input of the fused op holds it. */
  readonly input: number;
  readonly columns?: ColumnRange;
}

/** The bias that `node` adds to its input `index`. */
export function fusedBias(node: Node, index: number): FusedBias | undefined {
  const absorber = ABSORBERS[node.qualifiedOp];
  const value = absorber === undefined ? undefined : node.inputs[absorber.bias];
  if (absorber === undefined || value === null || value === undefined) return undefined;
  const position = absorber.from.indexOf(index);
  const constant = traceConstant(value);
  if (position < 0 || constant === undefined) return undefined;
  if (absorber.packed !== true) return { input: absorber.bias };
  // Query and key biases have the same size, that of the value may differ; only equal thirds can be told from dims.
  const total = constant.dims.at(-1) ?? 0;
  const size = total / absorber.from.length;
  if (!Number.isInteger(size)) return undefined;
  return { input: absorber.bias, columns: { start: position * size, end: (position + 1) * size } };
}
