/**
 * Takes fused attention apart for methods that act inside it: virtual keys and values of a prefix have no place in one
 * op. The model that is served is then the one taken apart; what folds is inserted into the fused model itself.
 */
import { expandWhere } from './expand.js';
import { fusedAttention } from './expansions/attention/index.js';

/** Run it on a typed model. A form that has no formula stays as it is. */
export const unfuseAttention = expandWhere(
  (node) => fusedAttention.has(node.qualifiedOp),
  'unfuse-attention',
  'writes fused attention as matrix products and a softmax',
);
