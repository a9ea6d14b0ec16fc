/** A two-layer classifier with hand-inserted LoRA branches: what `insert` makes, without needing it. */
import { writeAdapterRecord } from '../../passes/adapter-record.js';
import { adapterDropout } from '../../passes/dropout.js';
import { applyEdit } from '../../passes/edit.js';
import { Graph, Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { tensorType } from '../../src/types.js';

export const IN = 4;
export const HIDDEN = 16;
export const CLASSES = 3;
const RANK = 2;

export interface MlpOptions {
  readonly batch?: number | string;
  readonly dropout?: number;
  readonly opset?: number;
  /** Name of the hidden activation. */
  readonly hiddenName?: string;
  /** Zero B, as LoRA starts; random by default, so that every gradient is alive. */
  readonly fresh?: boolean;
}

export function mlp({ batch = 'batch', dropout = 0, opset = 17, hiddenName, fresh }: MlpOptions = {}): Model {
  const model = new Model(new Graph());
  model.irVersion = 8;
  model.opsets.set('', opset);
  const { graph } = model;
  const x = graph.addInput(new Value({ name: 'x', type: tensorType('float32', [batch, IN]) }));
  const weight = (name: string, dims: readonly number[], zero = false): Value => {
    const random = randomStream(5, name);
    const count = dims.reduce((n, d) => n * d, 1);
    const bound = 1 / Math.sqrt(dims[0]!);
    const data = Array.from({ length: count }, () => (zero ? 0 : (2 * random() - 1) * bound));
    const tensor = tensorOf('float32', dims, data);
    return graph.addInitializer(new Value({ name, type: tensorType('float32', dims), tensor }));
  };
  const b = new Builder(model);
  const layer = (input: Value, name: string, from: number, to: number): Value => {
    const base = b.op.MatMul(input, weight(`${name}.weight`, [from, to]));
    const A = weight(`${name}.lora_A`, [from, RANK]);
    const B = weight(`${name}.lora_B`, [RANK, to], fresh ?? false);
    return b.op.Add(base, b.op.Mul(b.op.MatMul(b.op.MatMul(adapterDropout(b, input, dropout), A), B), 2));
  };
  const hidden = b.op.Tanh(layer(x, 'fc1', IN, HIDDEN));
  if (hiddenName !== undefined) hidden.name = hiddenName;
  const logits = layer(hidden, 'fc2', HIDDEN, CLASSES);
  applyEdit({ label: 'mlp', graph, add: { nodes: b.nodes, at: 'end' }, addInitializers: b.initializers });
  graph.addOutput('logits', logits);
  graph.addOutput('hidden', hidden);
  writeAdapterRecord(model, {
    version: 2,
    entries: [{ method: 'lora', config: { rank: RANK, alpha: 4, dropout } }],
    seed: 0,
    sites: [
      { path: 'fc1', from: IN, to: HIDDEN },
      { path: 'fc2', from: HIDDEN, to: CLASSES },
    ].map(({ path, from, to }) => ({
      entry: 0,
      path,
      kind: 'linear',
      config: {},
      params: {
        A: param(path, 'A', [from, RANK], 'default'),
        B: param(path, 'B', [RANK, to], 'B'),
      },
    })),
  });
  return model;
}

function param(path: string, role: string, shape: number[], group: string) {
  const key = `${path}.lora_${role}`;
  const settings = { trainable: true, group, lrScale: 1, weightDecay: true };
  return { key, name: key, shape, dtype: 'float32' as const, ...settings };
}
