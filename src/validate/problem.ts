/** What validation finds. */
export interface Problem {
  /** Which rule is broken. */
  readonly rule: 'structure' | 'order' | 'schema' | 'names' | 'payload' | 'types';
  /** The node or value, with its graph where that is not the main one. */
  readonly where: string;
  /** One sentence without a trailing period. */
  readonly message: string;
  readonly remedy: string;
}

export type Report = (problem: Problem) => void;
