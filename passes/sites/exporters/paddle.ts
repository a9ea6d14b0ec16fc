/** Paddle2ONNX: flat names, weights as Constant nodes (`linear_77.w_0`). */
import { asIs, type Exporter } from './exporter.js';

export const paddle: Exporter = {
  id: 'paddle2onnx',
  title: 'Paddle2ONNX',
  matches: (model) =>
    /^(Paddle2ONNX|PaddlePaddle)/i.test(model.producerName) ||
    model.graph.firstNode?.name?.startsWith('p2o.') === true,
  path: asIs,
};
