/** `MatMul(x, W)` and `FusedMatMul(x, W)` of ONNX Runtime, which adds transposition and a factor. */
import { floatAttribute, intAttribute } from '../../../src/attribute.js';
import type { Detector } from '../draft.js';
import { expertDrafts } from '../experts.js';
import { linearDraft, linearWeight } from '../linear.js';
import { traceConstant } from '../weight.js';

export const matMul: Detector = {
  ops: ['MatMul', 'com.microsoft.FusedMatMul', 'com.microsoft.TransposeMatMul'],
  detect(node) {
    const x = node.input(0);
    if (traceConstant(x) !== undefined) return [];
    // Batch transposition permutes axes of x in a way that no feature axis describes.
    if (intAttribute(node, 'transBatchA', 0) !== 0 || intAttribute(node, 'transBatchB', 0) !== 0) return [];
    const weight = linearWeight(node, 1, {
      transposed: intAttribute(node, 'transB', 0) === 1,
      scale: floatAttribute(node, 'alpha', 1),
    });
    if (weight === undefined) return node.op === 'MatMul' ? expertDrafts(node, 1, x, false) : [];
    const xAxis = intAttribute(node, 'transA', 0) === 1 ? -2 : -1;
    return [linearDraft({ node, x, xAxis, y: node.output(0), weight })];
  },
};
