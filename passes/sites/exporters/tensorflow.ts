/** tf2onnx and keras2onnx: `tf_bert_model/bert/encoder/layer_._0/attention/self/query/Tensordot/MatMul`. */
import type { Exporter } from './exporter.js';

export const tensorflow: Exporter = {
  id: 'tensorflow',
  title: 'tf2onnx or keras2onnx',
  matches: (model) => /^(tf2onnx|keras2onnx)/.test(model.producerName),
  path: (spelled) =>
    spelled
      .replaceAll('_._', '.')
      .replace(/\.(Tensordot|MatMul)(\..*)?$/, '')
      // The first scope is the Keras model object, which torch's paths do not have.
      .replace(/^(StatefulPartitionedCall\.)?tf_[^.]*\./, ''),
};
