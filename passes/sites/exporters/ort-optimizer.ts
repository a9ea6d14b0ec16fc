/** Graphs rewritten by the Python optimizer of ONNX Runtime: fused ops, names of inner modules lost. */
import { asIs, type Exporter } from './exporter.js';

export const ortOptimizer: Exporter = {
  id: 'ort-transformers',
  title: 'ONNX Runtime transformers optimizer',
  matches: (model) => model.producerName === 'onnxruntime.transformers',
  path: asIs,
};
