/** Latency of models against one another: runs in turn, so that a machine's drift hits all alike. */
import { readModel } from '../src/onnx/index.js';
import { randomInputs, type Sizes } from './random-inputs.js';
import { type Session, SessionHost, type SessionOptions } from './session.js';

export interface LatencyRow {
  readonly label: string;
  /** Median milliseconds of a run. */
  readonly ms: number;
  /** Median over rounds of this model's time by the first model's of the same round. */
  readonly ratio: number;
}

export interface LatencyOptions {
  /** Symbols of the input shapes. */
  readonly sizes: Sizes;
  readonly rounds?: number;
  readonly session?: SessionOptions;
}

/** Measures models by path; the first one is what the others are compared with. */
export async function measureLatency(
  models: readonly { readonly label: string; readonly path: string }[],
  { sizes, rounds = 15, session: options = {} }: LatencyOptions,
): Promise<LatencyRow[]> {
  const host = new SessionHost();
  try {
    const sessions: Session[] = [];
    for (const { path } of models) sessions.push(await host.createSession(path, options));
    const first = models[0];
    if (first === undefined) return [];
    const feeds = randomInputs(readModel(first.path), { sizes, seed: 0 });
    const times = sessions.map((): number[] => []);
    const warmup = 2;
    for (let round = 0; round < warmup + rounds; round++)
      for (const [index, session] of sessions.entries()) {
        const start = performance.now();
        await session.run(feeds);
        if (round >= warmup) times[index]?.push(performance.now() - start);
      }
    return models.map(({ label }, index) => ({
      label,
      ms: median(times[index] ?? []),
      ratio: median((times[index] ?? []).map((time, round) => time / (times[0]?.[round] ?? time))),
    }));
  } finally {
    await host.close();
  }
}

/** The middle value; the lower one of an even count. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
}
