/**
 * The rank allocator of AdaLoRA. A triplet is a column of A, a number of E and a row of B. Its score is that of the
 * number plus the mean scores of column and row, where the score of an element p is I·U: I the smoothed sensitivity
 * |p·∂loss/∂p|, U the smoothed distance of the sensitivity from I. A budget of triplets falls from all to
 * `targetRank` per module along a cubic; those that exceed it, of least score over all modules, get E = 0. Masked
 * triplets go on training and may come back, until the last phase holds the mask.
 */
import { fail } from '../../../src/errors.js';
import type { Procedure, ProcedureParam } from '../contract/procedure.js';

export interface AllocatorConfig {
  readonly rank: number;
  readonly targetRank: number;
  readonly initialSteps: number;
  readonly finalSteps: number;
  readonly interval: number;
  readonly beta1: number;
  readonly beta2: number;
}

type State = Map<string, Float32Array>;

const SENSITIVITY = 'sensitivity/';
const UNCERTAINTY = 'uncertainty/';
const MASK = 'mask/';

/** A module's factors: A [in, rank], E [1, rank], B [rank, out]. */
interface Triplets {
  readonly A: ProcedureParam;
  readonly E: ProcedureParam;
  readonly B: ProcedureParam;
}

export function rankAllocator(config: AllocatorConfig): Procedure {
  const { initialSteps, finalSteps } = config;
  return {
    gradients: ['A', 'E', 'B'],
    writes: ['E'],

    begin(total) {
      if (initialSteps >= total - finalSteps)
        fail('E_USAGE', {
          message: `A run of ${total} steps has no phase in which ranks are allocated: ${initialSteps} initial and ${finalSteps} final steps`,
          where: 'adalora',
          remedy: 'Lower initialSteps and finalSteps, or train for more steps.',
        });
    },

    afterStep({ step, total, params }, state) {
      // Counted from 0, as schedules of PEFT are.
      const at = step - 1;
      const end = total - finalSteps;
      const modules = tripletsOf(params);
      if (at > end) {
        for (const { E } of modules) applyMask(E, state);
        return;
      }
      if (at < end) for (const param of params) observe(param, config, state);
      const budget = budgetAt(at, total, config, modules);
      if (at === end || (at > initialSteps && at % config.interval === 0)) allocate(modules, budget, state);
      if (at === end) forget(state);
    },
  };
}

/** Triplets that may be alive after step `at`, from 0. */
export function budgetAt(
  at: number,
  total: number,
  { initialSteps, finalSteps, targetRank }: AllocatorConfig,
  modules: readonly { readonly E: { readonly shape: readonly number[] } }[],
): number {
  const initial = modules.reduce((sum, { E }) => sum + (E.shape.at(-1) ?? 0), 0);
  const target = targetRank * modules.length;
  if (at <= initialSteps) return initial;
  if (at > total - finalSteps) return target;
  const left = 1 - (at - initialSteps) / (total - finalSteps - initialSteps);
  return Math.trunc((initial - target) * left ** 3 + target);
}

function tripletsOf(params: readonly ProcedureParam[]): Triplets[] {
  const modules = new Map<string, Record<string, ProcedureParam>>();
  for (const param of params) modules.set(param.site, { ...modules.get(param.site), [param.role]: param });
  return [...modules.values()].flatMap(({ A, E, B }) =>
    A === undefined || E === undefined || B === undefined ? [] : [{ A, E, B }],
  );
}

/** I ← β₁ I + (1 − β₁) |p·g|, U ← β₂ U + (1 − β₂) | |p·g| − I |. */
function observe(
  { key, data, gradient }: ProcedureParam,
  { beta1, beta2 }: AllocatorConfig,
  state: State,
): void {
  const sensitivity = state.get(SENSITIVITY + key) ?? new Float32Array(data.length);
  const uncertainty = state.get(UNCERTAINTY + key) ?? new Float32Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const now = Math.abs((data[i] as number) * (gradient?.[i] ?? 0));
    const smooth = Math.fround(beta1 * (sensitivity[i] as number) + (1 - beta1) * now);
    sensitivity[i] = smooth;
    uncertainty[i] = beta2 * (uncertainty[i] as number) + (1 - beta2) * Math.abs(now - smooth);
  }
  state.set(SENSITIVITY + key, sensitivity);
  state.set(UNCERTAINTY + key, uncertainty);
}

/** Masks all but `budget` triplets: those with a score up to that of the last one that is too many. */
function allocate(modules: readonly Triplets[], budget: number, state: State): void {
  const scores = modules.map((triplets) => scoresOf(triplets, state));
  const order = Float64Array.from(scores.flat()).sort();
  const threshold = order[order.length - budget - 1] ?? Number.NEGATIVE_INFINITY;
  for (const [index, { E }] of modules.entries()) {
    const kept = (scores[index] as number[]).map((score) => (score > threshold ? 1 : 0));
    state.set(MASK + E.key, Float32Array.from(kept));
    applyMask(E, state);
  }
}

function scoresOf({ A, E, B }: Triplets, state: State): number[] {
  const rank = E.data.length;
  const score = ({ key, data }: ProcedureParam) => {
    const sensitivity = state.get(SENSITIVITY + key);
    const uncertainty = state.get(UNCERTAINTY + key);
    return data.map((_, i) => (sensitivity?.[i] ?? 0) * (uncertainty?.[i] ?? 0));
  };
  const [ofA, ofE, ofB] = [score(A), score(E), score(B)];
  const rows = ofA.length / rank;
  const columns = ofB.length / rank;
  return Array.from({ length: rank }, (_, r) => {
    let sumA = 0;
    for (let i = 0; i < rows; i++) sumA += ofA[i * rank + r] as number;
    let sumB = 0;
    for (let j = 0; j < columns; j++) sumB += ofB[r * columns + j] as number;
    return (ofE[r] as number) + sumA / rows + sumB / columns;
  });
}

function applyMask({ key, data }: ProcedureParam, state: State): void {
  state.get(MASK + key)?.forEach((kept, r) => {
    if (kept === 0) data[r] = 0;
  });
}

/** What scores were made of is of no use once the ranks are settled. */
function forget(state: State): void {
  for (const name of [...state.keys()]) if (!name.startsWith(MASK)) state.delete(name);
}
