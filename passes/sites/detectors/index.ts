/** All detectors by operator. */
import type { Node } from '../../../src/graph.js';
import type { Detector } from '../draft.js';
import { packedAttention } from './attention.js';
import { conv } from './conv.js';
import { einsum } from './einsum.js';
import { embedLayerNorm } from './embed-layer-norm.js';
import { gather } from './gather.js';
import { gatherNd } from './gather-nd.js';
import { gemm } from './gemm.js';
import { matMul } from './matmul.js';
import { quantizedLinear } from './matmul-nbits.js';
import { quantizedGather } from './quantized-gather.js';

const DETECTORS: ReadonlyMap<string, Detector> = new Map(
  [
    matMul,
    gemm,
    conv,
    packedAttention,
    quantizedLinear,
    quantizedGather,
    einsum,
    gather,
    gatherNd,
    embedLayerNorm,
  ].flatMap((detector) => detector.ops.map((op) => [op, detector] as const)),
);

export function detectorOf(node: Node): Detector | undefined {
  return DETECTORS.get(node.qualifiedOp);
}
