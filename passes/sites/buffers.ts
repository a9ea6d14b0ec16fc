/** Constants that look like weights and are none: buffers of rotary embeddings and the like. */
import type { Value } from '../../src/graph.js';

/** Written by torch.export on initializers: `PARAMETER`, `BUFFER`, `CONSTANT_TENSOR`. */
const KIND = 'pkg.torch.export.graph_signature.InputSpec.kind';

const BUFFER_NAME =
  /(^|[._/])(inv_freq|(cos|sin)_cached?|(cos|sin)_cache|position_ids|causal_mask|attn_mask)$/;

export function isBuffer(value: Value): boolean {
  const kind = value.metadata.get(KIND);
  if (kind !== undefined) return !kind.includes('PARAMETER');
  return BUFFER_NAME.test(value.name ?? '');
}
