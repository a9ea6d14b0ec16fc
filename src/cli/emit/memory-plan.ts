/** `emit --plan`: the memory that training will take, before anything is written or run. */
import { checkSymbols, type MemoryPlan, planMemory, sharedPeak } from '../../../passes/memory/plan.js';
import type { StepArtifacts } from '../../../passes/targets/step.js';
import { formatBytes, print, printJson } from '../output.js';
import { table } from '../table.js';

/** Sizes of the symbolic dimensions, by name. */
export type PlanSizes = Readonly<Record<string, number>>;

/** Prints the estimates for the graphs of an optimizer step, per case of sizes. */
export function printMemoryPlans(
  { step, grad, update }: StepArtifacts,
  cases: readonly PlanSizes[],
  json: boolean,
): void {
  const models = Object.entries({ step, grad, update }).flatMap(([name, model]) =>
    model === undefined ? [] : [{ name, model }],
  );
  const plans = cases.map((sizes) => {
    const given = new Map(Object.entries(sizes));
    checkSymbols(
      models.map(({ model }) => model),
      given,
    );
    const graphs = models.map(({ name, model }) => ({ name, ...planMemory(model, { sizes: given }) }));
    return { sizes, graphs, peak: sharedPeak(graphs) };
  });
  if (json) {
    printJson({ target: 'step', plans });
    return;
  }
  for (const { sizes, graphs, peak } of plans) {
    const title = Object.entries(sizes).map(([name, size]) => `${name} ${size}`);
    print(
      `${title.length === 0 ? 'all sizes are fixed' : title.join(', ')}: about ${formatBytes(peak)} at the peak\n`,
    );
    print(table(HEAD, graphs.map(row), [1, 2, 3, 4, 5]));
    print();
  }
  const runtime = plans[0]?.graphs[0]?.runtime ?? 0;
  print(
    `runtime      ${formatBytes(runtime)} for Node and ONNX Runtime on the CPU, with a session and no model`,
  );
  print('packed       copies of weights for the matrix kernels of the CPU; train --low-memory does without');
  print('carried      batch, parameters and optimizer state, in and out');
  print('activations  intermediate values; --recompute and smaller micro-batches have fewer');
  print('gaps         what the allocator of ONNX Runtime holds besides');
}

const HEAD = ['graph', 'weights', 'packed', 'carried', 'activations', 'gaps', 'most at'];

function row({ name, ...plan }: MemoryPlan & { readonly name: string }): string[] {
  const { weights, packed, carried, activations, gaps, peakAt } = plan;
  return [name, ...[weights, packed, carried, activations, gaps].map(formatBytes), peakAt];
}
