/** Fold formulas made by hand, and the parameters that feed them. */
import type { AdapterParam } from '../../passes/adapter-record.js';
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type DType, tensorType } from '../../src/types.js';

/** A formula over inputs of these shapes, with one output. */
export function formulaOf<Name extends string>(
  shapes: Readonly<Record<Name, readonly (number | string)[]>>,
  build: (op: Ops, inputs: Readonly<Record<Name, Value>>) => Value,
  dtype: DType = 'float32',
): Model {
  const model = new Model(new Graph());
  model.opsets.set('', 18);
  model.irVersion = 8;
  const builder = new Builder(model);
  const inputs = Object.fromEntries(
    Object.entries<readonly (number | string)[]>(shapes).map(([name, shape]) => [
      name,
      model.graph.addInput(new Value({ name, type: tensorType(dtype, shape) })),
    ]),
  ) as Record<Name, Value>;
  const result = build(builder.op, inputs);
  for (const value of builder.initializers) model.graph.addInitializer(value);
  for (const node of builder.nodes) model.graph.append(node);
  model.graph.addOutput('folded', result);
  return model;
}

/** A trained parameter as records have it. */
export function trainedParam(key: string, shape: readonly number[]): AdapterParam {
  const common = {
    dtype: 'float32',
    trainable: true,
    group: 'default',
    lrScale: 1,
    weightDecay: true,
  } as const;
  return { key, name: key, shape: [...shape], ...common };
}
