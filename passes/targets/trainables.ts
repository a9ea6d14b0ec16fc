/** Turns trainable tensors of an adapted model into required graph inputs. */
import { fail } from '../../src/errors.js';
import { redirectUses, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, tensorType } from '../../src/types.js';
import type { AdapterParam } from '../adapter-record.js';

export interface Trainable {
  readonly param: AdapterParam;
  /** Graph input that is trained. */
  readonly input: Value;
  /** Dtype of the input. */
  readonly dtype: DType;
}

/** Dtype a parameter is trained in: updates of half-precision numbers round to nothing, so these travel as float32. */
export function trainingDtype(dtype: DType): DType {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/**
 * Makes every parameter a required input, in the given order, behind the inputs that are there. Its name stays. Where
 * the model stores half precision, the input is float32 and a Cast feeds the model.
 * Throws E_NO_MATCH when the model has no such tensor and E_TYPE when dtype or shape differ from the record.
 */
export function liftTrainables(model: Model, params: readonly AdapterParam[]): Trainable[] {
  const { graph } = model;
  const byName = new Map<string, Value>();
  for (const value of [...graph.inputs, ...graph.initializers])
    if (value.name !== undefined) byName.set(value.name, value);
  const lifted = params.map((param): Trainable => {
    const stored =
      byName.get(param.name) ??
      fail('E_NO_MATCH', {
        message: 'A trainable parameter is not in the model',
        where: param.name,
        remedy: 'Insert the adapter again; initializers were renamed or removed since',
      });
    if (stored.tensor !== undefined) checkTensor(param, stored.tensor);
    const dtype = trainingDtype(param.dtype);
    const input = new Value({ name: param.name, type: tensorType(dtype, param.shape) });
    return { param, input, dtype: replace(model, stored, input, param.dtype, dtype) };
  });
  const gone = new Set(params.map((param) => byName.get(param.name)));
  const kept = graph.inputs.filter((input) => !gone.has(input) && !graph.initializers.has(input));
  for (const value of gone) if (value !== undefined) graph.initializers.delete(value);
  graph.inputs.splice(0, graph.inputs.length, ...kept, ...lifted.map(({ input }) => input));
  return lifted;
}

function checkTensor(param: AdapterParam, tensor: { dtype: DType; dims: readonly number[] }): void {
  if (tensor.dtype === param.dtype && tensor.dims.join() === param.shape.join()) return;
  fail('E_TYPE', {
    message: `The adapter record says ${param.dtype}[${param.shape.join(', ')}], the model holds ${tensor.dtype}[${tensor.dims.join(', ')}]`,
    where: param.name,
    remedy: 'Insert the adapter again',
  });
}

/** Redirects all uses of `stored` to `input`, cast to the model's dtype. Returns the dtype of the input. */
function replace(model: Model, stored: Value, input: Value, from: DType, to: DType): DType {
  if (from === to) {
    redirectUses(stored, input);
    return to;
  }
  const b = new Builder(model, { provenance: 'parameter' });
  const cast = b.op.Cast(input, { to: from });
  redirectUses(stored, cast);
  const first = model.graph.firstNode;
  for (const node of b.nodes) {
    if (first === undefined) model.graph.append(node);
    else model.graph.insertBefore(first, node);
  }
  return to;
}
