/**
 * Normalisation for training. An adapted model that is served keeps the user's own nodes; only the copy that is
 * differentiated goes through these passes, in this order.
 */
import type { Pass } from '../pass.js';
import { constantsPass } from './constants.js';
import { dropoutPass } from './dropout.js';
import { geluPass } from './gelu.js';
import { layerNormPass, layerNormStatisticsPass } from './layer-norm.js';

export const normalizeForTraining: readonly Pass[] = [
  constantsPass,
  dropoutPass,
  layerNormPass,
  geluPass,
  layerNormStatisticsPass,
];
