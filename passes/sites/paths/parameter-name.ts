/** From the name of a parameter tensor to the path of the module that owns it. */

/** What tools append to a tensor's name. */
const TOOL_SUFFIX = /(_transposed|_resize|_quantized|_merged_\d+|_DQ_Q4|_Q4|_Q8|\.quant|_fp16|_cast|:0)$/;

/** The parameter's own name within its module, in the spellings of torch, builders and Keras. */
const PARAMETER =
  /[./](MatMul\.|Add\.|quant\.)?(weight|bias|kernel|embeddings|gamma|beta|in_proj_weight|in_proj_bias|qweight|weight_v|w|b|W|B|w_\d+|b_\d+)$/;

/** Names that exporters and optimizers mint; they say nothing about modules. */
const MINTED =
  /^(_?val_\d+(_\d+)?|\d+|onnx::.*|ortshared_.*|_?[vt]\d+|.*_token_\d+|const(ant)?_?.*|Constant.*|.*Attention_\d+_(qkv_)?(weight|bias)|p2o\..*|initializer_.*|.*_output_\d+)$/i;

/** A torch FQN or the like: what is left when the parameter's own name is taken off. Undefined for minted names. */
export function moduleOfParameter(
  name: string | undefined,
): { readonly path: string; readonly proper: boolean } | undefined {
  if (name === undefined) return undefined;
  let text = name;
  while (TOOL_SUFFIX.test(text)) text = text.replace(TOOL_SUFFIX, '');
  if (MINTED.test(text)) return undefined;
  const path = text.replace(PARAMETER, '');
  // A bare name without a parameter suffix is a weak hint: `W1`, `encoder_matrix`.
  return { path: path.replaceAll('/', '.').replace(/^\.+/, ''), proper: path !== text };
}
