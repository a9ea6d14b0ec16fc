/** Paddle2ONNX: flat names, weights as Constant nodes (`linear_77.w_0`). */
import type { Model } from '../../../src/model.js';
import { asIs, type Exporter } from './exporter.js';

export const paddle: Exporter = {
  id: 'paddle2onnx',
  title: 'Paddle2ONNX',
  matches: (model) =>
    /^(Paddle2ONNX|PaddlePaddle)/i.test(model.producerName) || firstName(model)?.startsWith('p2o.') === true,
  path: asIs,
};

/** Constants, which come first, have no names. */
function firstName({ graph }: Model): string | undefined {
  for (const { name } of graph.nodes()) if (name !== undefined && name !== '') return name;
  return undefined;
}
