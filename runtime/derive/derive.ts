/** Initial values that methods derive from the base's weights: formulas run in ONNX Runtime, transforms on the host. */
import { FoldFormula } from '../../passes/fold-formula.js';
import { type InsertPlan, type PlannedParam, planModules } from '../../passes/insert-plan.js';
import { type DerivedInit, isDerived } from '../../passes/methods/derived.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { encodeNumbers } from '../../src/literals.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { FormulaEvaluator } from '../fold/evaluator.js';
import { countOf, type HostTensor, numbersOf } from '../host-tensor.js';
import { operand } from './operand.js';

/** Values of the plan's derived parameters by key, in the dtype of the parameter. */
export async function deriveValues(plan: InsertPlan, seed: number): Promise<Map<string, Tensor>> {
  const wanted = new Map<string, PlannedParam>();
  for (const { params } of planModules(plan))
    for (const param of params) if (isDerived(param.spec.init)) wanted.set(param.key, param);
  const values = new Map<string, Tensor>();
  if (wanted.size === 0) return values;
  const evaluator = new FormulaEvaluator();
  try {
    for (const [key, param] of wanted)
      values.set(key, await derive(param, param.spec.init as DerivedInit, seed, evaluator));
  } finally {
    await evaluator.close();
  }
  return values;
}

async function derive(
  { key, spec, dtype, site, arrays }: PlannedParam,
  { of, then }: DerivedInit,
  seed: number,
  evaluator: FormulaEvaluator,
): Promise<Tensor> {
  const formula = new FoldFormula(site, 'float32');
  const stored = formula.stored();
  const output = of(formula.builder.op, { ...stored, w: stored.w as Value }, randomStream(seed, key));
  const model = formula.finish(output);
  const feeds: Record<string, HostTensor> = {};
  for (const [name, source] of formula.inputs) if ('base' in source) feeds[name] = await operand(source.base);
  // A formula that is an input itself needs no session.
  const direct = feeds[output.name ?? ''];
  const computed = direct ?? (await evaluator.run(model, feeds));
  const numbers = Float64Array.from(numbersOf(computed) as ArrayLike<number>);
  const result = then === undefined ? numbers : then({ dims: computed.dims, data: numbers }, arrays);
  if (result.length !== countOf(spec.shape))
    fail('E_TYPE', {
      message: `The derived initial value has ${result.length} elements, its parameter is [${spec.shape.join(', ')}]`,
      where: key,
    });
  return tensorOfBytes(dtype, spec.shape, encodeNumbers(dtype, result));
}
