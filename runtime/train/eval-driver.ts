/** Drives an eval graph that stands alone: nothing is resident but the session. */
import type { EvalManifest } from '../../passes/targets/manifest.js';
import { SessionHost, type SessionOptions, type Tensors } from '../session.js';
import { runEval } from './eval-run.js';
import type { EvalDriver } from './evaluate.js';
import { type DrivenGraphs, GraphSessions, sizesOf } from './graph-sessions.js';
import { combined, type Measured } from './measured.js';

export class EvalGraphDriver implements EvalDriver {
  readonly manifest: EvalManifest;
  readonly #host = new SessionHost();
  readonly #sessions: GraphSessions;
  /** Time inside the runtime, the loading of the graph left out. */
  seconds = 0;

  constructor(graphs: DrivenGraphs & { readonly manifest: EvalManifest }, options: SessionOptions = {}) {
    this.manifest = graphs.manifest;
    // Batches differ in length: a plan of the activations for each of them would be kept and seldom used again.
    this.#sessions = new GraphSessions(graphs, this.#host, { memPattern: false, ...options });
  }

  async evaluate(feeds: Tensors): Promise<Measured> {
    await this.#sessions.session('eval', sizesOf(feeds));
    const before = performance.now();
    const { loss, weight, metrics } = await runEval(this.#sessions, this.manifest, feeds);
    this.seconds += (performance.now() - before) / 1000;
    return { loss, weight, metrics };
  }

  combine(parts: readonly Measured[]): Measured {
    return combined(parts, this.manifest);
  }

  async close(): Promise<void> {
    await this.#sessions.close();
    await this.#host.close();
  }
}
