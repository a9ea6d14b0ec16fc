/** Elementwise ops with numpy broadcasting, and ops that keep the shape of their first input. */
import type { Shape } from '../../types.js';
import type { Call, Rule, Rules } from '../call.js';
import { broadcastShapes } from '../shapes.js';

/** Outputs have dtype and shape of the first input. */
const same: Rule = (c) => c.set(0, c.dtype(0), c.shape(0));

const sameAsBool: Rule = (c) => c.set(0, 'bool', c.shape(0));

function broadcastAll(c: Call, from = 0): Shape | null {
  let shape: Shape | null = c.shape(from);
  for (let i = from + 1; i < c.node.inputs.length; i++)
    if (c.has(i)) shape = broadcastShapes(c, shape, c.shape(i));
  return shape;
}

function firstDtype(c: Call) {
  for (let i = 0; i < c.node.inputs.length; i++) {
    const dtype = c.dtype(i);
    if (dtype !== undefined) return dtype;
  }
  return undefined;
}

const broadcast: Rule = (c) => c.set(0, firstDtype(c), broadcastAll(c));
const compare: Rule = (c) => c.set(0, 'bool', broadcastAll(c));

function each(names: string, rule: Rule): Rules {
  return Object.fromEntries(names.split(/\s+/).map((name) => [name, rule]));
}

export const elementwise: Rules = {
  ...each(
    `Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Hardmax
    Identity LeakyRelu Log LogSoftmax Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax
    Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu BitwiseNot Trilu CumSum CumProd LpNormalization
    MeanVarianceNormalization InstanceNormalization LRN ReverseSequence EyeLike Clip ScatterElements Scatter ScatterND
    TensorScatter GroupNormalization RotaryEmbedding`,
    same,
  ),
  ...each('Add Sub Mul Div Mod BitwiseAnd BitwiseOr BitwiseXor Max Min Mean Sum', broadcast),
  ...each('And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual', compare),
  ...each('Not IsNaN IsInf', sameAsBool),
  Identity: (c) => c.setType(0, c.valueType(0)),
  Pow: (c) => c.set(0, c.dtype(0), broadcastAll(c)),
  PRelu: (c) => c.set(0, c.dtype(0), c.shape(0)),
  BitShift: broadcast,
  Where: (c) => c.set(0, c.dtype(1) ?? c.dtype(2), broadcastAll(c)),
  Cast: (c) => c.set(0, c.dtypeAttribute('to'), c.shape(0)),
  CastLike: (c) => c.set(0, c.dtype(1), c.shape(0)),
  BitCast: (c) => c.set(0, c.dtypeAttribute('to'), c.shape(0)),
  EyeLike: (c) => c.set(0, c.dtypeAttribute('dtype') ?? c.dtype(0), c.shape(0)),
  Bernoulli: (c) => c.set(0, c.dtypeAttribute('dtype') ?? c.dtype(0), c.shape(0)),
  RandomNormalLike: (c) => c.set(0, c.dtypeAttribute('dtype') ?? c.dtype(0), c.shape(0)),
  RandomUniformLike: (c) => c.set(0, c.dtypeAttribute('dtype') ?? c.dtype(0), c.shape(0)),
  Dropout: (c) => {
    c.set(0, c.dtype(0), c.shape(0));
    // Before opset 10 the mask has the dtype of the data.
    c.set(1, (c.engine.opset('') ?? 10) < 10 ? c.dtype(0) : 'bool', c.shape(0));
  },
};
