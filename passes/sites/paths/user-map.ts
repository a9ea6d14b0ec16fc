/** Paths the user gave in a map: by node name, weight name or output name. They are believed. */
import { perDraft } from './source.js';

export const userMap = perDraft('user map', 'framework', ({ node, weight }, { userPaths }) => {
  for (const key of [node.name, weight.value.name, node.outputs[0]?.name]) {
    const path = key === undefined ? undefined : userPaths.get(key);
    if (path !== undefined) return { path, confidence: 1 };
  }
  return undefined;
});
