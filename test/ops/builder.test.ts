import { describe, expect, it } from 'vitest';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, formatType, type Shape, tensorType } from '../../src/types.js';

function modelAt(opset: number): Model {
  const model = new Model(new Graph());
  model.opsets.set('', opset);
  return model;
}

function input(name: string, dtype: DType, shape: Shape): Value {
  return new Value({ name, type: tensorType(dtype, shape) });
}

describe('builder', () => {
  it('types values while building and shares equal constants', () => {
    const b = new Builder(modelAt(17), { provenance: 'lora' });
    const x = input('x', 'float16', ['batch', 'seq', 64]);
    const A = input('A', 'float16', [64, 8]);
    const y = b.op.Mul(b.op.MatMul(x, A), 0.5);
    const z = b.op.Add(y, 0.5);
    expect(formatType(z.type)).toBe('float16[batch, seq, 8]');
    expect(b.initializers).toHaveLength(1);
    expect(b.initializers[0]!.tensor!.data.inline).toEqual(new Uint8Array([0x00, 0x38]));
    expect(b.nodes.map((n) => n.op)).toEqual(['MatMul', 'Mul', 'Add']);
    expect(b.nodes[0]!.provenance).toBe('lora');
  });

  it('moves axes to attributes where the opset has them there', () => {
    const x = input('x', 'float32', [2, 3, 4]);
    const old = new Builder(modelAt(11));
    old.op.ReduceSum(x, [1], { keepdims: false });
    expect(old.nodes[0]!.inputs).toHaveLength(1);
    expect(old.nodes[0]!.attributes.get('axes')).toEqual({ type: 'ints', value: [1n] });
    const young = new Builder(modelAt(18));
    young.op.ReduceSum(x, [1]);
    expect(young.nodes[0]!.inputs).toHaveLength(2);
    expect(young.initializers[0]!.type).toEqual(tensorType('int64', [1]));
  });
});
