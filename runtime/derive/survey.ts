/** Surveys of methods over the stored weights of the sites that are selected for them. */
import { FoldFormula } from '../../passes/fold/formula.js';
import { type InsertPlan, type PlannedSite, withSurveys } from '../../passes/insert/plan.js';
import type { SurveyContext, SurveyedSite, SurveyResult } from '../../passes/methods/contract/survey.js';
import { payloadOf } from '../../passes/sites/index.js';
import { dimsOf, storedOf } from '../../passes/sites/kinds/index.js';
import type { StoredTensor } from '../../passes/sites/kinds/kind.js';
import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { byteSize, countOf } from '../../src/types.js';
import { FormulaEvaluator } from '../fold/evaluator.js';
import { loadTensor, numbersOf } from '../host-tensor.js';
import { readSafetensors } from '../safetensors.js';
import { operand } from './operand.js';

/** Elements read at a time. */
const BLOCK = 1 << 20;

const context: SurveyContext = {
  tensors: (file) =>
    new Map(
      [...readSafetensors(file).tensors].map(([name, tensor]) => [
        name,
        {
          dtype: tensor.dtype,
          dims: tensor.dims,
          read: async () => new Float64Array(numbersOf(await loadTensor(tensor))),
        },
      ]),
    ),
};

/** The plan with the facts that the surveys of its methods found. */
export async function surveyed(plan: InsertPlan): Promise<InsertPlan> {
  const results = new Map<number, ReadonlyMap<string, SurveyResult>>();
  for (const [index, { method, config }] of plan.entries.entries()) {
    if (method.survey === undefined) continue;
    const modules = new Map<string, PlannedSite>();
    for (const planned of plan.sites)
      if (planned.entry === index && planned.site.callOf === undefined)
        modules.set(planned.site.path, planned);
    const sites = [...modules.values()].map(({ site }) => surveyedSite(site));
    results.set(index, await method.survey(sites, config, context));
  }
  return results.size === 0 ? plan : withSurveys(plan, results);
}

function surveyedSite(site: Site): SurveyedSite {
  const stored = storedOf(site);
  return {
    path: modulePath(site),
    kind: site.kind,
    dims: dimsOf(site),
    slots: Object.keys(stored) as ('w' | 'b')[],
    read: (slot) =>
      readStored(
        site,
        slot,
        stored[slot] ?? fail('E_UNSUPPORTED', { message: `The module has no ${slot}`, where: site.path }),
      ),
  };
}

/** Blocks of a stored tensor from the file; where the formulas see other numbers than it holds, these, all at once. */
async function* readStored(site: Site, slot: 'w' | 'b', stored: StoredTensor): AsyncGenerator<Float32Array> {
  const tensor =
    payloadOf(stored.value) ??
    fail('E_INVALID_GRAPH', { message: 'The weight of a site holds no numbers', where: stored.value.label });
  const formula = new FoldFormula(site, 'float32');
  const seen = formula.stored()[slot];
  if (seen === undefined) return;
  if (stored.storage !== 'dense')
    fail('E_UNSUPPORTED', {
      message: `The weight is stored ${stored.storage}; its numbers are not in the file as they are`,
      where: site.path,
      remedy: 'Choose a method that does not read weights, such as lora, or dequantise the model first',
    });
  if (!rearranges(seen)) {
    const evaluator = new FormulaEvaluator();
    try {
      const model = formula.finish(seen);
      const [input] = model.graph.inputs;
      const computed = await evaluator.run(model, { [input?.name ?? '']: await operand(stored.value) });
      yield numbersOf(computed) as Float32Array;
    } finally {
      await evaluator.close();
    }
    return;
  }
  const count = countOf(tensor.dims);
  for (let start = 0; start < count; start += BLOCK) {
    const length = Math.min(BLOCK, count - start);
    const data = tensor.data.read(byteSize(tensor.dtype, start), byteSize(tensor.dtype, length));
    const numbers = numbersOf({ dtype: tensor.dtype, dims: [length], data });
    yield numbers instanceof Float32Array ? numbers : new Float32Array(numbers);
  }
}

/** Whether a value is an input of its formula with the same numbers in another order, all of them. */
function rearranges(value: Value): boolean {
  const { producer } = value;
  if (producer === undefined) return true;
  return (producer.op === 'Transpose' || producer.op === 'Reshape') && rearranges(producer.input(0));
}
