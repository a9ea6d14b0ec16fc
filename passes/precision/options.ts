/** What a target can be asked for about precision. */
import type { Node } from '../../src/graph.js';
import type { HalfDType } from './lowered-tensor.js';

export interface PrecisionOptions {
  /** What products and features compute in, and what frozen weights are stored in. */
  readonly dtype: HalfDType;
  /** Operators of ai.onnx that stay float32 besides those that always do: what a provider has no kernels for. */
  readonly float32?: ReadonlySet<string>;
}

/** Provenance of the nodes of a loss starts so. */
const LOSS = 'loss ';

/** Whether a node belongs to the loss, which is float32 in every model. */
export function ofLoss(node: Node): boolean {
  return node.provenance?.startsWith(LOSS) === true;
}
