import { describe, expect, it } from 'vitest';
import { attr } from '../../src/attribute.js';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, formatType, type Shape, tensorType } from '../../src/types.js';

describe('builder refuses what does not fit', () => {
  const start = () => {
    const model = new Model(new Graph());
    model.opsets.set('', 17);
    return new Builder(model);
  };
  const value = (dtype: DType, shape: Shape) => new Value({ name: 'x', type: tensorType(dtype, shape) });
  it.each<[string, (b: Builder) => unknown, RegExp]>([
    [
      'inner dimensions',
      (b) => b.op.MatMul(value('float32', [2, 3]), value('float32', [4, 5])),
      /Inner dimensions 3 and 4 differ/,
    ],
    ['broadcast', (b) => b.op.Add(value('float32', [2, 3]), value('float32', [4])), /do not broadcast/],
    [
      'dtypes',
      (b) => b.op.Add(value('float32', [2]), value('float16', [2])),
      /one dtype.*float32 and float16/,
    ],
    ['a dtype the op does not take', (b) => b.op.Relu(value('bool', [2])), /takes no bool/],
    ['opset', (b) => b.op.BitwiseAnd(value('int32', [2]), value('int32', [2])), /BitwiseAnd.*opset 17/],
    [
      'attribute of a newer form',
      (b) => b.op.ReduceMax(value('float32', [2]), null, { noop_with_empty_axes: 1 }),
      /noop_with_empty_axes.*opset 17/,
    ],
    ['attribute type', (b) => b.call('Concat', [value('float32', [2])], { axis: 0.5 }), /axis.*int/],
    [
      'axes that are no constant',
      (b) => {
        const c = new Builder(Object.assign(new Model(new Graph()), {}));
        c.model.opsets.set('', 11);
        c.op.Squeeze(value('float32', [2, 1]), b.op.Shape(value('float32', ['n'])));
      },
      /'axes' must be constant/,
    ],
  ])('%s', (_, build, message) => {
    expect(() => build(start())).toThrow(message);
  });

  it('call() builds the form it is given', () => {
    const b = start();
    const [y, mean, deviation] = b.call(
      'LayerNormalization',
      [value('float32', ['n', 6]), value('float32', [6])],
      { axis: attr.int(-1) },
      { outputs: 3 },
    );
    expect([y, mean, deviation].map((v) => formatType(v!.type))).toEqual([
      'float32[n, 6]',
      'float32[n, 1]',
      'float32[n, 1]',
    ]);
  });
});
