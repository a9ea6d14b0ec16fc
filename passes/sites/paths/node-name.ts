/** The scope in the node's name: `/model/layers.0/self_attn/q_proj/MatMul`. */

import { pathOfScopedName } from './scopes.js';
import { perDraft } from './source.js';

export const nodeName = perDraft('node name', 'exporter', ({ node }) => {
  const path = pathOfScopedName(node.name);
  return path === undefined ? undefined : { path, confidence: 0.9 };
});
