/**
 * A Llama-shaped decoder with seeded random weights: RMS norms, rotary positions, attention without biases, a gated
 * MLP, and a head tied to the embedding, as torch's exporter leaves them. Its numbers are made when they are written,
 * a piece at a time, so that a model of any size needs no memory.
 */
import type { z } from 'zod';
import { Value } from '../../../src/graph.js';
import { encodeNumbers } from '../../../src/literals.js';
import type { Model } from '../../../src/model.js';
import { type Tensor, type TensorData, tensorOfBytes } from '../../../src/tensor.js';
import { byteSize, tensorType } from '../../../src/types.js';
import { emptyModel, type transformerShape } from './transformer.js';

export type LlamaShape = Readonly<z.output<typeof transformerShape>>;

/** 1.08 GB of float32 weights in the widths of Llama 3.2 1B's attention and TinyLlama's MLP. */
export const LLAMA_1GB: LlamaShape = { layers: 4, hidden: 2048, heads: 32, intermediate: 5632, vocab: 32000 };

/** The same widths and bytes in half precision. */
export const LLAMA_1GB_HALF: LlamaShape = { ...LLAMA_1GB, layers: 9 };

export const LLAMA_TINY: LlamaShape = { layers: 2, hidden: 64, heads: 4, intermediate: 160, vocab: 200 };

const PIECE = 1 << 18;
const BOUND = 0.03;

export type LlamaDType = 'float32' | 'float16' | 'bfloat16';

/** Uniform numbers in [−0.03, 0.03), made piece by piece (xorshift32). */
class RandomData implements TensorData {
  readonly byteLength: number;

  constructor(
    readonly count: number,
    readonly seed: number,
    readonly dtype: LlamaDType,
  ) {
    this.byteLength = byteSize(dtype, count);
  }

  read(): never {
    throw new Error('A streamed payload is read in order');
  }

  async *stream(): AsyncGenerator<Uint8Array> {
    let state = (Math.imul(this.seed + 1, 0x9e3779b1) ^ 0x5bd1e995) | 1;
    for (let done = 0; done < this.count; done += PIECE) {
      const piece = new Float32Array(Math.min(PIECE, this.count - done));
      for (let i = 0; i < piece.length; i++) {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        piece[i] = (state / 0x80000000) * BOUND;
      }
      yield encodeNumbers(this.dtype, piece);
    }
  }
}

function floats(dims: readonly number[], values: Float32Array, dtype: LlamaDType = 'float32'): Tensor {
  return tensorOfBytes(dtype, dims, encodeNumbers(dtype, values));
}

/**
 * Input `input_ids` int64[batch, sequence]; output `logits` [batch, sequence, vocab] in the dtype of the weights. Angles
 * of positions are computed in float32.
 */
export function llamaDecoder(
  { layers, hidden, heads, intermediate, vocab }: LlamaShape,
  dtype: LlamaDType = 'float32',
): Model {
  const { model, graph, builder: b } = emptyModel('llama');
  const { op } = b;
  const headDim = hidden / heads;

  let seed = 0;
  const initializer = (name: string, tensor: Tensor) =>
    graph.addInitializer(new Value({ name, type: tensorType(tensor.dtype, tensor.dims), tensor }));
  const weight = (name: string, rows: number, columns: number) =>
    initializer(name, {
      dtype,
      dims: [rows, columns],
      data: new RandomData(rows * columns, seed++, dtype),
    });
  const linear = (path: string, x: Value, inDim: number, outDim: number) =>
    op.MatMul(x, weight(`${path}.weight`, inDim, outDim));
  const norm = (path: string, x: Value) => {
    const mean = op.ReduceMean(op.Pow(x, 2), [-1], { keepdims: 1 });
    const gain = initializer(`${path}.weight`, floats([hidden], new Float32Array(hidden).fill(1), dtype));
    return op.Mul(gain, op.Mul(x, op.Div(1, op.Sqrt(op.Add(mean, 1e-5)))));
  };

  const ids = graph.addInput(
    new Value({ name: 'input_ids', type: tensorType('int64', ['batch', 'sequence']) }),
  );
  const length = op.Gather(op.Shape(ids), 1);
  const frequencies = initializer(
    'model.rotary_emb.inv_freq',
    floats(
      [1, headDim / 2],
      Float32Array.from({ length: headDim / 2 }, (_, i) => 10000 ** ((-2 * i) / headDim)),
    ),
  );
  const positions = op.Unsqueeze(op.Cast(op.Range(0n, length, 1n), { to: 'float32' }), [1]);
  const half = op.Mul(positions, frequencies);
  const angles = op.Concat([half, half], { axis: -1 });
  const inDType = (x: Value) => (dtype === 'float32' ? x : op.Cast(x, { to: dtype }));
  const [cos, sin] = [inDType(op.Cos(angles)), inDType(op.Sin(angles))];
  const rotated = (x: Value) => {
    const [left, right] = op.Split(x, [headDim / 2, headDim / 2], { axis: -1 }, 2) as [Value, Value];
    return op.Add(op.Mul(x, cos), op.Mul(op.Concat([op.Neg(right), left], { axis: -1 }), sin));
  };
  const split = (x: Value) => op.Transpose(op.Reshape(x, [0, 0, heads, headDim]), { perm: [0, 2, 1, 3] });
  const later = op.Greater(op.Transpose(positions, { perm: [1, 0] }), positions);
  const bias = op.Mul(op.Cast(later, { to: dtype }), -10_000);

  const table = weight('model.embed_tokens.weight', vocab, hidden);
  let x = op.Gather(table, ids);
  for (let layer = 0; layer < layers; layer++) {
    const path = `model.layers.${layer}`;
    const normed = norm(`${path}.input_layernorm`, x);
    const project = (name: string) => split(linear(`${path}.self_attn.${name}`, normed, hidden, hidden));
    const q = rotated(project('q_proj'));
    const k = rotated(project('k_proj'));
    const v = project('v_proj');
    const scores = op.Div(op.MatMul(q, op.Transpose(k, { perm: [0, 1, 3, 2] })), Math.sqrt(headDim));
    const context = op.MatMul(op.Softmax(op.Add(scores, bias), { axis: -1 }), v);
    const joined = op.Reshape(op.Transpose(context, { perm: [0, 2, 1, 3] }), [0, 0, hidden]);
    x = op.Add(x, linear(`${path}.self_attn.o_proj`, joined, hidden, hidden));
    const inner = norm(`${path}.post_attention_layernorm`, x);
    const gate = linear(`${path}.mlp.gate_proj`, inner, hidden, intermediate);
    const up = linear(`${path}.mlp.up_proj`, inner, hidden, intermediate);
    const product = op.Mul(op.Mul(gate, op.Sigmoid(gate)), up);
    x = op.Add(x, linear(`${path}.mlp.down_proj`, product, intermediate, hidden));
  }
  const logits = op.MatMul(norm('model.norm', x), op.Transpose(table, { perm: [1, 0] }));
  for (const value of b.initializers) graph.addInitializer(value);
  for (const node of b.nodes) graph.append(node);
  graph.addOutput('logits', logits);
  return model;
}
