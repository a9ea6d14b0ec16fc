/** Losses and metrics: read off what a graph returned, and put together over batches as the manifest says. */
import type { EvalManifest } from '../../passes/targets/manifest.js';
import { type HostTensor, scalarOf } from '../host-tensor.js';
import type { Tensors } from '../session.js';

/** Loss and metrics over some batches. */
export interface Measured {
  /** Mean loss. */
  readonly loss: number;
  /** What the mean divides by: tokens, rows or elements that count. */
  readonly weight: number;
  /** Metrics by name, reduced as the manifest says. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** Measurements as a graph returned them, not reduced. */
export function measured(results: Tensors, { outputs }: EvalManifest): Measured {
  const { loss, weight, metrics } = outputs;
  const read = (name: string) => scalarOf(results[name] as HostTensor);
  return {
    loss: read(loss),
    weight: read(weight),
    metrics: Object.fromEntries(metrics.map(({ name }) => [name, read(name)])),
  };
}

/** Combines measurements of batches into one over all of them. */
export function combined(parts: readonly Measured[], manifest: EvalManifest): Measured {
  return reduce(
    parts.map((part) => ({ ...part, metrics: unreduced(part, manifest) })),
    manifest,
  );
}

/** Mean loss over the weights; metrics as their `reduce` says. */
export function reduce(parts: readonly Measured[], manifest: EvalManifest): Measured {
  const weight = parts.reduce((sum, part) => sum + part.weight, 0);
  const mean = (value: (part: Measured) => number) =>
    parts.length === 1 && parts[0] !== undefined
      ? value(parts[0])
      : parts.reduce((sum, part) => sum + value(part) * part.weight, 0) / weight;
  const metrics = manifest.outputs.metrics.map(({ name, reduce: how, perWeight }) => {
    if (how === 'mean') return [name, mean((part) => part.metrics[name] ?? 0)] as const;
    const sum = parts.reduce((total, part) => total + (part.metrics[name] ?? 0), 0);
    return [name, perWeight ? sum / weight : sum] as const;
  });
  return { loss: mean((part) => part.loss), weight, metrics: Object.fromEntries(metrics) };
}

/** Metrics of a measurement as the graph gave them: sums before the division by the weight. */
function unreduced(part: Measured, manifest: EvalManifest): Record<string, number> {
  return Object.fromEntries(
    manifest.outputs.metrics.map(({ name, reduce: how, perWeight }) => [
      name,
      (part.metrics[name] ?? 0) * (how === 'sum' && perWeight ? part.weight : 1),
    ]),
  );
}
