/** Paths this project wrote into node metadata when it made or rewrote the node. */
import { perDraft } from './source.js';

export const MODULE_METADATA_KEY = 'peft_compile.module';

export const manifest = perDraft('manifest', 'framework', ({ node }) => {
  const path = node.metadata.get(MODULE_METADATA_KEY);
  return path === undefined ? undefined : { path, confidence: 1 };
});
