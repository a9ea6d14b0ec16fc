/**
 * Products with a quantised weight, by the operator that holds the weight: what goes in and comes out as floats, and how
 * the weight is stored. Sites, gradients, folds and `quantize` all read them here.
 */
import type { Node } from '../../src/graph.js';
import { matMulBnb4 } from './forms/bnb4.js';
import { dequantizeLinear } from './forms/dequantize.js';
import {
  dynamicQuantizeMatMul,
  matMulInteger,
  matMulIntegerToFloat,
  qLinearMatMul,
} from './forms/integer.js';
import { matMulNBits } from './forms/nbits.js';
import type { QuantizedMatrix, QuantizedProduct, Refusal } from './matrix.js';

/** Reads the product that a node is the centre of; undefined when it is none, or its weight is no constant. */
export type ProductForm = (node: Node) => QuantizedProduct | undefined;

const FORMS: ReadonlyMap<string, ProductForm> = new Map<string, ProductForm>([
  ['com.microsoft.MatMulNBits', matMulNBits],
  ['com.microsoft.MatMulBnb4', matMulBnb4],
  ['MatMulInteger', matMulInteger],
  ['com.microsoft.MatMulIntegerToFloat', matMulIntegerToFloat],
  ['com.microsoft.DynamicQuantizeMatMul', dynamicQuantizeMatMul],
  ['QLinearMatMul', qLinearMatMul],
]);

/** Operators that are centres of quantised products. */
export const PRODUCT_OPS: readonly string[] = [...FORMS.keys()];

export function quantizedProduct(node: Node): QuantizedProduct | undefined {
  return FORMS.get(node.qualifiedOp)?.(node);
}

/** The matrix that a DequantizeLinear makes of a constant; undefined for other nodes, and for activations. */
export function dequantizedMatrix(node: Node): QuantizedMatrix | Refusal | undefined {
  return dequantizeLinear(node);
}

export function isRefusal(weight: QuantizedMatrix | Refusal): weight is Refusal {
  return 'remedy' in weight;
}
