/** What the detectors of embeddings share. */
import type { Node, Value } from '../../src/graph.js';
import { isFloat } from '../../src/types.js';
import type { EmbeddingDraft } from './draft.js';
import { graphOf } from './linear.js';
import { payloadTransposed, traceConstant } from './weight.js';

/** The table that input `index` reads as [vocab, dim]; undefined when it is no constant float matrix. */
export function embeddingDraft(
  node: Node,
  index: number,
  ids: Value,
  y: Value | undefined,
): EmbeddingDraft | undefined {
  const consumed = node.inputs[index];
  const constant = consumed === null || consumed === undefined ? undefined : traceConstant(consumed);
  if (consumed === null || consumed === undefined || constant === undefined) return undefined;
  const [vocab, dim] = constant.dims;
  if (constant.dims.length !== 2 || vocab === undefined || dim === undefined) return undefined;
  const transposed = payloadTransposed(constant, vocab);
  if (transposed === undefined || !isFloat(constant.dtype)) return undefined;
  return {
    kind: 'embedding',
    node,
    graph: graphOf(node),
    dtype: constant.dtype,
    ids,
    y,
    weight: {
      value: constant.value,
      transposed,
      scale: 1,
      consumed,
      consumedTransposed: false,
      input: index,
      chain: constant.chain,
      storage: constant.storage,
    },
    vocab,
    dim,
  };
}
