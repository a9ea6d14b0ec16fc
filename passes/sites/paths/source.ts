/** A source of module paths: looks at drafts and says what it believes. One file per source in this folder. */
import type { Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import type { Draft } from '../draft.js';
import type { PathGuess } from '../site.js';

export interface PathContext {
  readonly model: Model;
  /** All drafts in order of execution. */
  readonly drafts: readonly Draft[];
  /** Paths the user gave, by node name, weight name or output name. */
  readonly userPaths: ReadonlyMap<string, string>;
  /** Drafts that read a weight value. */
  readonly readers: ReadonlyMap<Value, readonly Draft[]>;
  /** Drafts that add a bias value. */
  readonly biasReaders: ReadonlyMap<Value, readonly Draft[]>;
}

export interface PathSource {
  /** Printed in tables as the origin of a path. */
  readonly id: string;
  /** Whether paths are in the spelling of the exporter, to be normalised by its dialect. */
  readonly spelling: 'framework' | 'exporter';
  propose(context: PathContext): ReadonlyMap<Draft, Omit<PathGuess, 'source'>>;
}

/** A source that looks at one draft at a time. */
export function perDraft(
  id: string,
  spelling: PathSource['spelling'],
  guess: (draft: Draft, context: PathContext) => Omit<PathGuess, 'source'> | undefined,
): PathSource {
  return {
    id,
    spelling,
    propose(context) {
      const found = new Map<Draft, Omit<PathGuess, 'source'>>();
      for (const draft of context.drafts) {
        const one = guess(draft, context);
        if (one !== undefined && one.path !== '') found.set(draft, one);
      }
      return found;
    },
  };
}
