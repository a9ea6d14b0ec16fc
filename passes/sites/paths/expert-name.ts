/** Experts in one tensor are no modules: the parameter's own name is the path, under which PEFT targets it too. */
import { moduleOfParameter } from './parameter-name.js';
import { perDraft } from './source.js';

export const expertName = perDraft('parameter name', 'exporter', ({ weight }) => {
  const owner = weight.slice === undefined ? undefined : moduleOfParameter(weight.value.name);
  return owner === undefined ? undefined : { path: owner.path, confidence: 0.995 };
});
