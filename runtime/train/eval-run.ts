/** One batch through an eval graph. */
import type { EvalManifest } from '../../passes/targets/manifest.js';
import { fitOutput } from '../ep/feeds.js';
import type { HostTensor } from '../host-tensor.js';
import type { Tensors } from '../session.js';
import type { GraphSessions } from './graph-sessions.js';
import { type Measured, measured, reduce } from './measured.js';

export interface EvalRunOptions {
  /** Parameters that are resident: input name → key. */
  readonly resident?: Readonly<Record<string, string>>;
  /** Outputs of the model to return. */
  readonly outputs?: readonly string[];
}

/** Loss, metrics and, when named, outputs of the model. The buffers of the feeds are given away. */
export async function runEval(
  sessions: GraphSessions,
  manifest: EvalManifest,
  feeds: Tensors,
  { resident = {}, outputs = [] }: EvalRunOptions = {},
): Promise<Measured & { readonly outputs: Tensors }> {
  const { loss, weight, metrics, model } = manifest.outputs;
  const results = await sessions.run('eval', feeds, {
    resident,
    fetch: [loss, weight, ...metrics.map(({ name }) => name), ...outputs],
  });
  const dtypes = new Map(model.map(({ name, dtype }) => [name, dtype]));
  return {
    ...reduce([measured(results, manifest)], manifest),
    outputs: Object.fromEntries(
      outputs.map((name) => {
        const tensor = results[name] as HostTensor;
        return [name, fitOutput(tensor, dtypes.get(name) ?? tensor.dtype)];
      }),
    ),
  };
}
