/**
 * `Gemm`: y = alpha · A' · B' + beta · C, with either operand transposed. GPT-2's Conv1D is one between Reshapes. Of a
 * `FusedGemm` only the activation behind the sum is seen.
 */
import { floatAttribute, intAttribute } from '../../../src/attribute.js';
import { isBias, storedBias } from '../bias.js';
import type { Detector } from '../draft.js';
import { linearDraft, linearWeight } from '../linear.js';
import { traceConstant } from '../weight.js';

export const gemm: Detector = {
  ops: ['Gemm', 'com.microsoft.FusedGemm'],
  detect(node) {
    const x = node.input(0);
    if (traceConstant(x) !== undefined) return [];
    const weight = linearWeight(node, 1, {
      transposed: intAttribute(node, 'transB', 0) === 1,
      scale: floatAttribute(node, 'alpha', 1),
    });
    if (weight === undefined) return [];
    const xAxis = intAttribute(node, 'transA', 0) === 1 ? 0 : -1;
    const c = node.inputs[2];
    const bias =
      c !== null && c !== undefined && isBias(c, weight.outDim)
        ? storedBias(node, 2, { scale: floatAttribute(node, 'beta', 1) })
        : {};
    const draft = linearDraft({ node, x, xAxis, y: node.output(0), weight, ...bias });
    if (!node.attributes.has('activation')) return [draft];
    const { parts: _parts, ...hidden } = draft;
    return [{ ...hidden, y: undefined }];
  },
};
