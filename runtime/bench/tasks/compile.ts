/** Compile times over graphs of a given size. Each runs once in a fresh process, as the command does. */
import { z } from 'zod';
import { readAdapterRecord, trainableParams } from '../../../passes/adapter-record.js';
import { lossById } from '../../../passes/losses/index.js';
import { claimFixedNames } from '../../../passes/targets/layout.js';
import { PublicNames } from '../../../passes/targets/names.js';
import { emitStep } from '../../../passes/targets/step.js';
import { buildTrainGraph } from '../../../passes/targets/train-graph.js';
import type { Model } from '../../../src/model.js';
import { bertClassifier } from '../models/bert.js';
import { type BenchTask, timed } from '../task.js';
import { withLora } from './lora.js';

const input = z.object({ nodes: z.int() });
const SMALL = { hidden: 16, heads: 4, intermediate: 32, vocab: 64, positions: 32, labels: 2 };

/** The model whose node count is nearest to `nodes`; weights are tiny, so that only the graph counts. */
function modelOf(nodes: number): Model {
  const [one, two] = [1, 2].map((layers) => bertClassifier({ ...SMALL, layers }).graph.nodeCount);
  const perLayer = (two ?? 0) - (one ?? 0);
  const layers = Math.max(1, Math.round((nodes - (one ?? 0)) / perLayer) + 1);
  return bertClassifier({ ...SMALL, layers });
}

/** Insertion of LoRA and emission of the step target: `insertMs`, `emitMs`, `totalMs`, `nodes`, `stepNodes`. */
export const compile: BenchTask = async (given) => {
  const model = modelOf(input.parse(given).nodes);
  const nodes = model.graph.nodeCount;
  const inserted = await timed(() => withLora(model, 8, ['query', 'value']));
  const emitted = await timed(() => emitStep(model, { loss: 'classification', clip: 1 }));
  return {
    nodes,
    insertMs: inserted.ms,
    emitMs: emitted.ms,
    totalMs: inserted.ms + emitted.ms,
    stepNodes: emitted.value.step?.graph.nodeCount ?? 0,
  };
};

/** Insertion, normalisation and differentiation only: `insertMs`, `backwardMs`, `totalMs`, `nodes`. */
export const differentiate: BenchTask = async (given) => {
  const model = modelOf(input.parse(given).nodes);
  const nodes = model.graph.nodeCount;
  const inserted = await timed(() => withLora(model, 8, ['query', 'value']));
  const differentiated = await timed(() => {
    const names = new PublicNames(model);
    const record = readAdapterRecord(model);
    return buildTrainGraph(model, trainableParams(record), {
      record,
      methods: [],
      loss: lossById('classification').configure(undefined),
      names,
      labelNames: new Map(),
      mean: true,
      seedName: claimFixedNames(names).seed,
      dropout: undefined,
      lossScale: undefined,
      gradientRules: [],
      lowerings: [],
    });
  });
  return {
    nodes,
    insertMs: inserted.ms,
    backwardMs: differentiated.ms,
    totalMs: inserted.ms + differentiated.ms,
  };
};
