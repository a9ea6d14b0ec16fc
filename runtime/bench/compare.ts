/** Measures several things in turn, round by round (A B C A B C …), so that a machine's drift hits all alike. */
import { type Json, median } from './task.js';

export interface Subject {
  readonly name: string;
  /** One measurement, in a process of its own. */
  readonly measure: () => Promise<Json>;
}

/** Figures of all subjects by round. */
export class Rounds {
  readonly #figures = new Map<string, Json[]>();

  add(name: string, figures: Json): void {
    this.#figures.set(name, [...(this.#figures.get(name) ?? []), figures]);
  }

  has(name: string): boolean {
    return this.#figures.has(name);
  }

  /** All figures by subject. */
  all(): Record<string, readonly Json[]> {
    return Object.fromEntries(this.#figures);
  }

  /** Median over rounds, or null for a subject that was not measured. */
  median(name: string, key: string): number | null {
    const values = this.#values(name, key);
    return values.length === 0 ? null : median(values);
  }

  /**
   * Smallest over rounds. What else runs on a machine only ever adds time, so this is the figure that it disturbs least;
   * `spread` says how much it was disturbed.
   */
  best(name: string, key: string): number | null {
    const values = this.#values(name, key);
    return values.length === 0 ? null : Math.min(...values);
  }

  /** (Largest − smallest) / smallest over rounds: how noisy a figure is. */
  spread(name: string, key: string): number | null {
    const values = this.#values(name, key);
    return values.length < 2 ? null : Math.max(...values) / Math.min(...values) - 1;
  }

  /** One subject's smallest figure by another's. */
  ratio(name: string, key: string, other: string, otherKey: string = key): number | null {
    const [a, b] = [this.best(name, key), this.best(other, otherKey)];
    return a === null || b === null ? null : a / b;
  }

  #values(name: string, key: string): number[] {
    return (this.#figures.get(name) ?? [])
      .map((figures) => figures[key])
      .filter((v) => typeof v === 'number');
  }
}

export async function inTurn(
  subjects: readonly Subject[],
  rounds: number,
  log: (line: string) => void,
): Promise<Rounds> {
  const results = new Rounds();
  for (let round = 1; round <= rounds; round++)
    for (const { name, measure } of subjects) {
      log(`  round ${round}/${rounds}: ${name}`);
      results.add(name, await measure());
    }
  return results;
}
