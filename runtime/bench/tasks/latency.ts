/** Models against one another, in turn within one process. */
import { z } from 'zod';
import { measureLatency } from '../../latency.js';
import type { BenchTask } from '../task.js';

/** `rows`: label, milliseconds and ratio to the first model, as `measureLatency` gives them. */
export const latency: BenchTask = async (input) => {
  const { models, sizes, rounds, threads } = z
    .object({
      models: z.array(z.object({ label: z.string(), path: z.string() })),
      sizes: z.record(z.string(), z.int()),
      rounds: z.int(),
      threads: z.int(),
    })
    .parse(input);
  return { rows: await measureLatency(models, { sizes, rounds, session: { threads } }) };
};
