/** Fused attention as matrix products and a softmax: Attention of ai.onnx 23 and 24, and ONNX Runtime's forms of it. */
import { defineExpansion, type Expansion } from '../../expansion.js';
import { groupQueryAttention } from './group-query.js';
import { multiHeadAttention } from './multi-head.js';
import { packedAttention } from './packed.js';
import { standardAttention } from './standard.js';

const domain = 'com.microsoft';

/** Forms that only inference has, of com.microsoft, and why. */
export const inferenceOnly: Readonly<Record<string, string>> = {
  DecoderMaskedMultiHeadAttention: 'it decodes one token after a past that training does not have',
  DecoderMaskedSelfAttention: 'it decodes one token after a past that training does not have',
  DecoderAttention: 'it decodes one token after a past that training does not have',
  PackedAttention: 'its rows are packed without padding, which only the kernel for CUDA unpacks',
  PackedMultiHeadAttention: 'its rows are packed without padding, which only the kernel for CUDA unpacks',
  PagedAttention: 'its cache is in pages of a server',
  SparseAttention: 'it looks at blocks of keys that only its kernel knows',
  LongformerAttention: 'its sliding windows exist in its kernel only',
  QAttention: 'its weights are quantised inside the op; quantise the model after the adapter is folded',
};

export const attentions: readonly Expansion[] = [
  defineExpansion({ op: 'Attention', expand: standardAttention }),
  defineExpansion({ op: 'Attention', domain, expand: packedAttention }),
  defineExpansion({ op: 'MultiHeadAttention', domain, expand: multiHeadAttention }),
  defineExpansion({ op: 'GroupQueryAttention', domain, expand: groupQueryAttention }),
];

/** The operators, as people write them. */
export const fusedAttention: ReadonlySet<string> = new Set(
  attentions.map(({ op, domain: of }) => (of === undefined ? op : `${of}.${op}`)),
);
