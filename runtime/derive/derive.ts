/** Initial values that methods derive from the base's weights: formulas run in ONNX Runtime, transforms on the host. */
import { FoldFormula } from '../../passes/fold/formula.js';
import { type InsertPlan, type PlannedParam, planModules } from '../../passes/insert/plan.js';
import { type DerivedInit, isDerived } from '../../passes/methods/contract/derived.js';
import { payloadOf } from '../../passes/sites/index.js';
import { storedOf } from '../../passes/sites/kinds/index.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { encodeNumbers } from '../../src/literals.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { countOf } from '../../src/types.js';
import { FormulaEvaluator } from '../fold/evaluator.js';
import { type HostTensor, numbersOf } from '../host-tensor.js';
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
  const tensors = Object.values(storedOf(site));
  const computed = tensors.some(({ value }) => payloadOf(value)?.dtype === 'float64') ? 'float64' : 'float32';
  const formula = new FoldFormula(site, computed);
  const stored = formula.stored();
  const output = of(formula.builder.op, { ...stored, w: stored.w as Value }, randomStream(seed, key));
  const model = formula.finish(output);
  const feeds: Record<string, HostTensor> = {};
  for (const [name, source] of formula.inputs) {
    if (!('base' in source)) continue;
    const read = tensors.find(({ value }) => value === source.base);
    if (read !== undefined && read.storage !== 'dense')
      fail('E_UNSUPPORTED', {
        message: `The initial value comes from a weight that is stored ${read.storage}`,
        where: key,
        remedy: 'Choose a method that does not read weights, such as lora, or dequantise the model first',
      });
    feeds[name] = await operand(source.base, computed);
  }
  // A formula that is an input itself needs no session.
  const result = feeds[output.name ?? ''] ?? (await evaluator.run(model, feeds));
  const numbers = numbersOf(result);
  const initial =
    then === undefined ? numbers : then({ dims: result.dims, data: new Float64Array(numbers) }, arrays);
  if (initial.length !== countOf(spec.shape))
    fail('E_TYPE', {
      message: `The derived initial value has ${initial.length} elements, its parameter is [${spec.shape.join(', ')}]`,
      where: key,
    });
  return tensorOfBytes(dtype, spec.shape, encodeNumbers(dtype, initial));
}
