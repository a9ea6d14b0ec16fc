/** Learning-rate schedules, computed on the host and fed as an input. Same values as transformers' `get_scheduler`. */
import { fail } from '../../src/errors.js';

export interface ScheduleConfig {
  readonly id: string;
  readonly learningRate: number;
  readonly warmupSteps: number;
  readonly totalSteps: number;
}

/** Factor on the learning rate after warm-up; `progress` runs from 0 to 1 between warm-up and the last step. */
const DECAYS: Readonly<Record<string, (progress: number) => number>> = {
  constant: () => 1,
  linear: (progress) => 1 - progress,
  cosine: (progress) => 0.5 * (1 + Math.cos(Math.PI * progress)),
};

export const SCHEDULES: readonly string[] = Object.keys(DECAYS);

/** Learning rate of the optimizer step `step`, counted from 1. Warm-up rises from 0 at the first step. */
export function learningRate(config: ScheduleConfig, step: number): number {
  const decay =
    DECAYS[config.id] ??
    fail('E_USAGE', {
      message: `There is no schedule '${config.id}'`,
      remedy: `Use one of: ${SCHEDULES.join(', ')}`,
    });
  const done = step - 1;
  const { warmupSteps, totalSteps } = config;
  if (done < warmupSteps) return config.learningRate * (done / warmupSteps);
  const progress = (done - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  return config.learningRate * decay(Math.min(1, progress));
}
