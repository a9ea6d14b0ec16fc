/** Which operators compute in half precision, and which never do. */

const words = (text: string): ReadonlySet<string> => new Set(text.split(/\s+/).filter((word) => word !== ''));

/**
 * Operators that stay float32 in every mixed graph: sums over many elements, exponentials and logarithms, roots and powers,
 * angles, normalisations, and those that state the dtype of their output themselves. What only picks or moves numbers
 * (ReduceMax, Gather) loses nothing in half precision.
 */
export const ALWAYS_FLOAT32: ReadonlySet<string> = words(`
  Softmax LogSoftmax Softplus Exp Log Pow Sqrt Reciprocal
  ReduceSum ReduceMean ReduceSumSquare ReduceL1 ReduceL2 ReduceProd ReduceLogSum ReduceLogSumExp
  CumSum Sum Mean AveragePool GlobalAveragePool LpPool GlobalLpPool ScatterElements ScatterND
  LayerNormalization RMSNormalization SimplifiedLayerNormalization InstanceNormalization BatchNormalization
  GroupNormalization LpNormalization MeanVarianceNormalization LRN
  Cos Sin Tan Acos Asin Atan Cosh Sinh Acosh Asinh Atanh Mod Range Resize
  ConstantOfShape EyeLike CastLike QuantizeLinear DequantizeLinear DynamicQuantizeLinear
  RandomNormal RandomUniform RandomNormalLike RandomUniformLike
  LSTM GRU RNN`);

/**
 * Products: they read half precision wherever they stand. In the backward pass everything else takes the wider of what it
 * reads, so that the gradients of float32 operators are float32, too.
 */
export const PRODUCTS: ReadonlySet<string> = words('MatMul Gemm Conv ConvTranspose Einsum');

/** Operators that only ask for the shape of what they read. */
export const SHAPES: ReadonlySet<string> = words('Shape Size');

/** Operators in which a constant beyond the range stands for "as far down as it goes": masks. */
export const SATURATING: ReadonlySet<string> = words('Where Add Max Min Clip');
