/** Forms that `quantize` stores weights in: which operator computes with them, what its tensors are, where it runs. */
import type { Value } from '../../src/graph.js';
import type { Builder } from '../../src/ops/builder.js';
import type { DType } from '../../src/types.js';

export interface QuantizeSettings {
  /** Inputs that share a scale. */
  readonly blockSize: number;
  /** No zero points: the range of the codes lies around 0. */
  readonly symmetric: boolean;
}

export interface ProductSizes {
  readonly inDim: number;
  readonly outDim: number;
  /** Dtype of x and of the scales. */
  readonly dtype: DType;
}

export interface PartSpec {
  readonly dtype: DType;
  readonly dims: readonly number[];
}

/** Dtypes and dims of what is stored for one weight. */
export interface StoredParts {
  readonly codes: PartSpec;
  readonly scales: PartSpec;
  readonly zeroPoints?: PartSpec;
}

export interface QuantizedParts {
  readonly codes: Value;
  readonly scales: Value;
  readonly zeroPoints: Value | null;
}

export interface QuantizeFormat {
  readonly summary: string;
  /** Sizes of blocks it takes; empty where there are none. */
  readonly blocks: readonly number[];
  readonly defaultBlock: number;
  /** Whether zero points can be stored beside the scales. */
  readonly asymmetric: boolean;
  /** The codes are [out, in]. */
  readonly transposed: boolean;
  /** Which runtimes have the operator, for reports. */
  readonly runs: string;
  /** Oldest opset of the model. */
  readonly opset: number;
  /** Dtypes of activations that there are kernels for. */
  readonly dtypes: readonly DType[];
  /** Why a weight of these sizes cannot be stored so; undefined when it can. */
  refuses?(sizes: ProductSizes, settings: QuantizeSettings): string | undefined;
  parts(sizes: ProductSizes, settings: QuantizeSettings): StoredParts;
  /** `x W` from the stored parts. */
  product(
    b: Builder,
    x: Value,
    parts: QuantizedParts,
    sizes: ProductSizes,
    settings: QuantizeSettings,
  ): Value;
}

const POWERS = [16, 32, 64, 128, 256] as const;

/** MatMulNBits: codes [out, blocks, bytes], scales [out, blocks]. */
function nbits(bits: 4 | 8): QuantizeFormat {
  return {
    summary: `${bits}-bit integers in blocks along the inputs (com.microsoft.MatMulNBits)`,
    blocks: POWERS,
    defaultBlock: 32,
    asymmetric: true,
    transposed: true,
    runs: "ONNX Runtime's CPU, CUDA and WebGPU providers, and onnxruntime-web",
    opset: 13,
    dtypes: ['float32', 'float16'],
    parts({ inDim, outDim, dtype }, { blockSize, symmetric }) {
      const blocks = Math.ceil(inDim / blockSize);
      const codes: PartSpec = { dtype: 'uint8', dims: [outDim, blocks, (blockSize * bits) / 8] };
      const scales: PartSpec = { dtype, dims: [outDim, blocks] };
      const zeros: PartSpec = { dtype: 'uint8', dims: [outDim, Math.ceil((blocks * bits) / 8)] };
      return symmetric ? { codes, scales } : { codes, scales, zeroPoints: zeros };
    },
    product(b, x, { codes, scales, zeroPoints }, { inDim, outDim }, { blockSize }) {
      const attributes = { K: inDim, N: outDim, bits, block_size: blockSize };
      const [y] = b.call('MatMulNBits', [x, codes, scales, zeroPoints], attributes, {
        domain: 'com.microsoft',
      });
      return y as Value;
    },
  };
}

const nf4: QuantizeFormat = {
  summary: '4-bit NormalFloat of QLoRA in blocks of the flat weight (com.microsoft.MatMulBnb4)',
  blocks: POWERS,
  defaultBlock: 64,
  asymmetric: false,
  transposed: true,
  runs: "ONNX Runtime's CPU and CUDA providers and onnxruntime-web's wasm only: WebGPU, CoreML and DirectML have no kernel for it and leave it to the CPU",
  opset: 13,
  dtypes: ['float32', 'float16'],
  refuses: ({ inDim, outDim }, { blockSize }) =>
    (inDim * outDim) % blockSize === 0
      ? undefined
      : `its ${inDim * outDim} numbers do not fill blocks of ${blockSize}`,
  parts: ({ inDim, outDim, dtype }, { blockSize }) => ({
    codes: { dtype: 'uint8', dims: [Math.ceil((inDim * outDim) / 2)] },
    scales: { dtype, dims: [Math.ceil((inDim * outDim) / blockSize)] },
  }),
  product(b, x, { codes, scales }, { inDim, outDim }, { blockSize }) {
    const attributes = { K: inDim, N: outDim, block_size: blockSize, quant_type: 1 };
    const [y] = b.call('MatMulBnb4', [x, codes, scales], attributes, { domain: 'com.microsoft' });
    return y as Value;
  },
};

const qdq: QuantizeFormat = {
  summary: '8-bit integers with a scale per output, as standard operators (DequantizeLinear and MatMul)',
  blocks: [],
  defaultBlock: 0,
  asymmetric: false,
  transposed: false,
  runs: 'every ONNX runtime',
  opset: 13,
  dtypes: ['float32'],
  parts: ({ inDim, outDim, dtype }) => ({
    codes: { dtype: 'int8', dims: [inDim, outDim] },
    scales: { dtype, dims: [outDim] },
  }),
  product: (b, x, { codes, scales }) =>
    b.op.MatMul(x, b.op.DequantizeLinear(codes, scales, null, { axis: 1 })),
};

export const FORMATS = { int4: nbits(4), int8: nbits(8), nf4, 'int8-qdq': qdq } as const satisfies Record<
  string,
  QuantizeFormat
>;
export type FormatId = keyof typeof FORMATS;
