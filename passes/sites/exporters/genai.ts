/** The model builder of onnxruntime-genai: `/model/layers.0/attn/q_proj/MatMul`, `….q_proj.MatMul.weight`. */
import type { Exporter } from './exporter.js';

export const genai: Exporter = {
  id: 'ort-genai',
  title: 'onnxruntime-genai model builder',
  matches: (model) =>
    model.producerName.startsWith('onnxruntime-genai') ||
    [...model.graph.initializers].some((value) => /\.layers\.\d+\..*\.MatMul\.weight/.test(value.name ?? '')),
  // The norm behind the last layer counts as one of a layer more; norms of heads hold their weight in a module.
  path: (spelled) =>
    spelled
      .replace(/\.attn\./, '.self_attn.')
      .replace(/\.attn$/, '.self_attn')
      .replace(/\.layers\.\d+\.final_norm_layernorm$/, '.norm')
      .replace(/\.([qk]_norm)\.layernorm$/, '.$1'),
};
