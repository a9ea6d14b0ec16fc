/** The name of the bias. Worth nothing when several sites share it: equal vectors are merged by value. */
import { moduleOfParameter } from './parameter-name.js';
import { perDraft } from './source.js';

export const biasName = perDraft('bias name', 'exporter', (draft, { biasReaders }) => {
  if (draft.kind !== 'linear' || draft.bias === undefined || draft.bias.columns !== undefined)
    return undefined;
  const { value } = draft.bias;
  const owner = moduleOfParameter(value.name);
  if (owner === undefined || !owner.proper) return undefined;
  const shared = (biasReaders.get(value)?.length ?? 0) > 1 || value.uses.size > 1;
  return { path: owner.path, confidence: shared ? 0 : 0.6 };
});
