/** Counting weights: initializers and Constant nodes of floating or quantised payload, nested graphs included. */
import { type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { elementsOf, expectedBytes, type Tensor } from '../../src/tensor.js';
import type { DType } from '../../src/types.js';
import { payloadOf } from '../sites/payload.js';
import type { ParameterGroup, ParameterInfo } from './report.js';

/** Every stored constant of a model, each once. */
export function* constants(model: Model): IterableIterator<readonly [Value, Tensor]> {
  const seen = new Set<Value>();
  for (const graph of walkGraphs(model.graph)) {
    const values = [...graph.initializers];
    for (const node of graph.nodes()) if (node.qualifiedOp === 'Constant') values.push(node.output(0));
    for (const value of values) {
      const tensor = payloadOf(value);
      if (tensor === undefined || seen.has(value)) continue;
      seen.add(value);
      yield [value, tensor];
    }
  }
}

/** Tensors of rank 0 (scalars of formulas) and of dtype string or bool are no parameters. */
export function parameterInfo(model: Model): ParameterInfo {
  const groups = new Map<DType, { tensors: number; elements: number; bytes: number }>();
  for (const [value, tensor] of constants(model)) {
    if (!isParameter(value, tensor)) continue;
    const group = groups.get(tensor.dtype) ?? { tensors: 0, elements: 0, bytes: 0 };
    group.tensors++;
    group.elements += elementsOf(tensor);
    group.bytes += expectedBytes(tensor);
    groups.set(tensor.dtype, group);
  }
  const byDtype: ParameterGroup[] = [...groups]
    .map(([dtype, group]) => ({ dtype, ...group }))
    .sort((a, b) => b.bytes - a.bytes);
  const sum = (key: 'tensors' | 'elements' | 'bytes'): number =>
    byDtype.reduce((total, group) => total + group[key], 0);
  return { tensors: sum('tensors'), elements: sum('elements'), bytes: sum('bytes'), byDtype };
}

/** int32 and int64 hold shapes and indices, whatever their size. */
const NO_WEIGHTS: ReadonlySet<DType> = new Set(['string', 'bool', 'int32', 'int64', 'undefined']);

function isParameter(value: Value, tensor: Tensor): boolean {
  return tensor.dims.length > 0 && !NO_WEIGHTS.has(tensor.dtype) && value.uses.size > 0;
}
