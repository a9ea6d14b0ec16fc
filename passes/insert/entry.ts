/** What a user asks for: methods or compositions, each with its settings and targets. */
import type { Method } from '../methods/contract/method.js';
import type { Targeting } from '../sites/targeting.js';

/** One method or preset with its targets. Several stack in the order given, where they meet. */
export interface InsertEntry {
  /** Id of a shipped method or preset, or a method of one's own. */
  readonly method: Method | string;
  /** Its configuration; defaults where absent. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Which sites; see `passes/sites/targeting.ts`. Targets default to the method's own. */
  readonly targeting?: EntryTargeting;
}

export type EntryTargeting = Omit<Targeting, 'targets'> & {
  readonly targets?: Targeting['targets'] | undefined;
};

/** An entry whose method is found. */
export interface ResolvedEntry extends InsertEntry {
  readonly method: Method;
}
