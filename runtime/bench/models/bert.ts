/**
 * A BERT classifier with seeded random weights, in the idiom of torch's TorchScript exporter at opset 17: MatMul + Add
 * linears, decomposed erf-GELU, additive mask. Built here so that benchmarks of any size need no exporter.
 */
import { z } from 'zod';
import { Value } from '../../../src/graph.js';
import { type Initializer, initTensor, normal, ones, zeros } from '../../../src/initializer.js';
import type { Model } from '../../../src/model.js';
import { tensorType } from '../../../src/types.js';
import { emptyModel, transformerShape } from './transformer.js';

export const bertShape = transformerShape.extend({ positions: z.int(), labels: z.int() });
export type BertShape = Readonly<z.output<typeof bertShape>>;

/** Width of BERT-base with 6 layers, the subject of the step-time figures. */
export const BERT_BASE_6: BertShape = {
  layers: 6,
  hidden: 768,
  heads: 12,
  intermediate: 3072,
  vocab: 30522,
  positions: 512,
  labels: 2,
};

/** Standard deviation of initial weights, as in the BERT paper. */
const STD = 0.02;

/** Inputs `input_ids` and `attention_mask` int64[batch, sequence]; output `logits` float32[batch, labels]. */
export function bertClassifier(shape: BertShape, seed = 0): Model {
  const { model, graph, builder: b } = emptyModel('bert');
  const { op } = b;
  const { hidden, heads, intermediate } = shape;
  const headDim = hidden / heads;

  const input = (name: string) =>
    graph.addInput(new Value({ name, type: tensorType('int64', ['batch', 'sequence']) }));
  const weight = (name: string, dims: readonly number[], init: Initializer) => {
    const tensor = initTensor(init, 'float32', dims, seed, name);
    return graph.addInitializer(new Value({ name, type: tensorType('float32', dims), tensor }));
  };
  const linear = (path: string, x: Value, inDim: number, outDim: number) =>
    op.Add(
      op.MatMul(x, weight(`${path}.weight`, [inDim, outDim], normal(STD))),
      weight(`${path}.bias`, [outDim], normal(STD)),
    );
  const norm = (path: string, x: Value) =>
    op.LayerNormalization(
      x,
      weight(`${path}.weight`, [hidden], ones),
      weight(`${path}.bias`, [hidden], zeros),
      { axis: -1, epsilon: 1e-12 },
    );
  const split = (x: Value) => op.Reshape(x, [0, 0, heads, headDim]);
  const gelu = (x: Value) => op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, Math.SQRT2)), 1)), 0.5);

  const ids = input('input_ids');
  const mask = input('attention_mask');
  const length = op.Gather(op.Shape(ids), 1);
  const embeddings = 'bert.embeddings';
  const words = op.Gather(
    weight(`${embeddings}.word_embeddings.weight`, [shape.vocab, hidden], normal(STD)),
    ids,
  );
  const positions = op.Gather(
    weight(`${embeddings}.position_embeddings.weight`, [shape.positions, hidden], normal(STD)),
    op.Range(0n, length, 1n),
  );
  let x = norm(`${embeddings}.LayerNorm`, op.Add(words, positions));
  const bias = op.Mul(op.Sub(1, op.Cast(op.Unsqueeze(mask, [1, 2]), { to: 'float32' })), -10_000);
  for (let layer = 0; layer < shape.layers; layer++) {
    const path = `bert.encoder.layer.${layer}`;
    const self = `${path}.attention.self`;
    const q = op.Transpose(split(linear(`${self}.query`, x, hidden, hidden)), { perm: [0, 2, 1, 3] });
    const k = op.Transpose(split(linear(`${self}.key`, x, hidden, hidden)), { perm: [0, 2, 3, 1] });
    const v = op.Transpose(split(linear(`${self}.value`, x, hidden, hidden)), { perm: [0, 2, 1, 3] });
    const scores = op.Add(op.Div(op.MatMul(q, k), Math.sqrt(headDim)), bias);
    const context = op.Transpose(op.MatMul(op.Softmax(scores, { axis: -1 }), v), { perm: [0, 2, 1, 3] });
    const joined = op.Reshape(context, [0, 0, hidden]);
    x = norm(
      `${path}.attention.output.LayerNorm`,
      op.Add(linear(`${path}.attention.output.dense`, joined, hidden, hidden), x),
    );
    const inner = gelu(linear(`${path}.intermediate.dense`, x, hidden, intermediate));
    x = norm(
      `${path}.output.LayerNorm`,
      op.Add(linear(`${path}.output.dense`, inner, intermediate, hidden), x),
    );
  }
  const first = op.Tanh(linear('bert.pooler.dense', op.Gather(x, 0, { axis: 1 }), hidden, hidden));
  const logits = linear('classifier', first, hidden, shape.labels);
  for (const value of b.initializers) graph.addInitializer(value);
  for (const node of b.nodes) graph.append(node);
  graph.addOutput('logits', logits);
  return model;
}
