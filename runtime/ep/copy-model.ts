/** The smallest model that moves a tensor from one place to another. */
import { Graph, Node, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { type DType, tensorType } from '../../src/types.js';

const made = new Map<DType, Uint8Array>();

/** y = x, of any shape. */
export function copyModel(dtype: DType): Uint8Array {
  const known = made.get(dtype);
  if (known !== undefined) return known;
  const type = tensorType(dtype, null);
  const x = new Value({ name: 'x', type });
  const y = new Value({ name: 'y', type });
  const model = new Model(new Graph());
  model.graph.name = 'copy';
  model.irVersion = 8;
  model.opsets.set('', 17);
  model.graph.addInput(x);
  model.graph.append(new Node({ op: 'Identity', inputs: [x], outputs: [y] }));
  model.graph.addOutput('y', y);
  const bytes = encodeModel(model);
  made.set(dtype, bytes);
  return bytes;
}
