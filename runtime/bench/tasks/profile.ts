/** Reads ONNX Runtime's traces. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';

const traceSchema = z.array(
  z.looseObject({
    cat: z.string().optional(),
    name: z.string(),
    dur: z.number().optional(),
    args: z.record(z.string(), z.unknown()).optional(),
  }),
);

export interface OperatorTime {
  readonly operator: string;
  /** Milliseconds per run. */
  readonly ms: number;
  /** Kernels per run. */
  readonly count: number;
}

/** Time by operator type per run, largest first, from the trace with this prefix; the first `skip` runs do not count. */
export function timesByOperator(prefix: string, skip: number): OperatorTime[] {
  const folder = dirname(prefix);
  const file = readdirSync(folder).find((name) => name.startsWith(`${basename(prefix)}_`));
  if (file === undefined) throw new Error(`no trace ${prefix}_*.json`);
  const events = traceSchema.parse(JSON.parse(readFileSync(join(folder, file), 'utf8')));
  const times = new Map<string, { us: number; count: number }>();
  let runs = 0;
  let pending = new Map<string, { us: number; count: number }>();
  for (const { cat, name, dur = 0, args } of events) {
    if (name === 'model_run') {
      // A run's own event follows those of its kernels.
      if (runs++ >= skip) for (const [op, sum] of pending) add(times, op, sum.us, sum.count);
      pending = new Map();
    } else if (cat === 'Node' && name.endsWith('_kernel_time')) add(pending, String(args?.op_name), dur, 1);
  }
  const counted = Math.max(1, runs - skip);
  return [...times]
    .map(([operator, { us, count }]) => ({ operator, ms: us / 1000 / counted, count: count / counted }))
    .sort((a, b) => b.ms - a.ms);
}

function add(
  times: Map<string, { us: number; count: number }>,
  operator: string,
  us: number,
  count: number,
): void {
  const sum = times.get(operator) ?? { us: 0, count: 0 };
  times.set(operator, { us: sum.us + us, count: sum.count + count });
}
