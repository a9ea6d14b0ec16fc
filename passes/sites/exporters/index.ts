/** Known exporters, most specific marks first. */
import type { Model } from '../../../src/model.js';
import { asIs, type Exporter } from './exporter.js';
import { genai } from './genai.js';
import { ortOptimizer } from './ort-optimizer.js';
import { paddle } from './paddle.js';
import { tensorflow } from './tensorflow.js';
import { dynamo, legacyTorch, torchScript } from './torch.js';

const UNKNOWN: Exporter = { id: 'unknown', title: 'unknown', matches: () => true, path: asIs };

const EXPORTERS: readonly Exporter[] = [
  genai,
  ortOptimizer,
  tensorflow,
  paddle,
  dynamo,
  torchScript,
  legacyTorch,
  UNKNOWN,
];

export function exporterOf(model: Model): Exporter {
  return EXPORTERS.find((exporter) => exporter.matches(model)) ?? UNKNOWN;
}

export type { Exporter } from './exporter.js';
