/** The scope in the name of the output, which fused nodes keep from the nodes they replaced. */

import { pathOfScopedName } from './scopes.js';
import { perDraft } from './source.js';

export const outputName = perDraft('output name', 'exporter', ({ node }) => {
  const path = pathOfScopedName(node.outputs[0]?.name);
  return path === undefined ? undefined : { path, confidence: 0.7 };
});
