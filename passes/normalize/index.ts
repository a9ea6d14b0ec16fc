/**
 * Normalisation for training. An adapted model that is served keeps the user's own nodes; only the copy that is
 * differentiated goes through these passes, in this order. Run them on a typed model (`inferModel`) with `runPasses`.
 */
import type { Pass } from '../pass.js';
import { branchesPass } from './branches.js';
import { constantsPass } from './constants.js';
import { dropoutPass } from './dropout.js';
import { expandPass } from './expand.js';
import { geluPass } from './gelu.js';
import { inlineFunctions } from './inline-functions.js';
import { layerNormPass, layerNormStatisticsPass } from './layer-norm.js';
import { linearPass } from './linear.js';
import { raiseOpsetPass } from './raise-opset.js';
import { slicesPass } from './slices.js';

export const normalizeForTraining: readonly Pass[] = [
  inlineFunctions,
  branchesPass,
  constantsPass,
  dropoutPass,
  raiseOpsetPass,
  expandPass,
  layerNormPass,
  geluPass,
  slicesPass,
  linearPass,
  layerNormStatisticsPass,
];
