/** Surveys of methods over the stored weights of the sites that are selected for them. */
import { FoldFormula } from '../../passes/fold-formula.js';
import { type InsertPlan, type PlannedSite, withSurveys } from '../../passes/insert-plan.js';
import type { SurveyContext, SurveyedSite, SurveyResult } from '../../passes/methods/survey.js';
import { payloadOf } from '../../passes/sites/index.js';
import { dimsOf, storedOf } from '../../passes/sites/kinds/index.js';
import type { StoredTensor } from '../../passes/sites/kinds/kind.js';
import type { Site } from '../../passes/sites/site.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { fail } from '../../src/errors.js';
import { byteSize } from '../../src/types.js';
import { FormulaEvaluator } from '../fold/evaluator.js';
import { countOf, loadTensor, numbersOf } from '../host-tensor.js';
import { readSafetensors } from '../safetensors.js';
import { operand } from './operand.js';

/** Elements read at a time. */
const BLOCK = 1 << 20;

const context: SurveyContext = {
  async tensors(file) {
    const found = new Map<string, { dims: readonly number[]; data: Float64Array }>();
    for (const [name, tensor] of readSafetensors(file).tensors) {
      const numbers = numbersOf(await loadTensor(tensor)) as ArrayLike<number | bigint>;
      found.set(name, { dims: tensor.dims, data: Float64Array.from(numbers as ArrayLike<number>, Number) });
    }
    return found;
  },
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

/** Blocks of a stored tensor, in the order in which it is stored; a part of a packed one is taken out of it first. */
async function* readStored(site: Site, slot: 'w' | 'b', stored: StoredTensor): AsyncGenerator<Float32Array> {
  const tensor =
    payloadOf(stored.value) ??
    fail('E_INVALID_GRAPH', { message: 'The weight of a site holds no numbers', where: stored.value.label });
  if (stored.columns !== undefined || stored.storage !== 'dense') {
    const formula = new FoldFormula(site, 'float32');
    const output = formula.stored()[slot];
    if (output === undefined) return;
    const model = formula.finish(output);
    const evaluator = new FormulaEvaluator();
    try {
      const computed = await evaluator.run(model, {
        [model.graph.inputs[0]?.name ?? '']: await operand(stored.value),
      });
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
    yield Float32Array.from(numbersOf({ dtype: tensor.dtype, dims: [length], data }) as ArrayLike<number>);
  }
}
