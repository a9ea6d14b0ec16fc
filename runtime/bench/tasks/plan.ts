/** What `emit --plan` says about emitted graphs; not measured. */
import { join } from 'node:path';
import { z } from 'zod';
import { planMemory, sharedPeak, symbolsOf } from '../../../passes/memory/plan.js';
import { readModel } from '../../../src/onnx/index.js';
import { loadArtifacts } from '../../artifacts.js';
import type { BenchTask } from '../task.js';

/** Estimated peak of a process that runs the graphs of a folder, in MiB. */
export const planSteps: BenchTask = async (input) => {
  const { folder, batch, sequence, prepack } = z
    .object({ folder: z.string(), batch: z.int(), sequence: z.int(), prepack: z.boolean() })
    .parse(input);
  const { manifest } = await loadArtifacts(folder);
  const { step, grad, update } = manifest.graphs;
  const plans = [step, grad, update].flatMap((graph) => {
    if (graph === undefined) return [];
    const model = readModel(join(folder, graph.file));
    const known = new Set(symbolsOf(model.graph));
    const sizes = new Map(Object.entries({ batch, sequence }).filter(([name]) => known.has(name)));
    return [planMemory(model, { sizes, prepack })];
  });
  return { planMiB: sharedPeak(plans) / 2 ** 20 };
};
