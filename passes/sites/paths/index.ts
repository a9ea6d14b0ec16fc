/** Paths of drafts: all sources are asked, the best guess wins, and no two sites get the same path. */
import type { Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import type { Draft } from '../draft.js';
import { exporterOf } from '../exporters/index.js';
import type { PathGuess } from '../site.js';
import { biasName } from './bias-name.js';
import { expertName } from './expert-name.js';
import { experts } from './experts.js';
import { foldedFrom } from './folded-from.js';
import { manifest } from './manifest.js';
import { nameScopes } from './name-scopes.js';
import { nodeName } from './node-name.js';
import { outputName } from './output-name.js';
import type { PathContext, PathSource } from './source.js';
import { structure } from './structure.js';
import { twinTest } from './twins.js';
import { userMap } from './user-map.js';
import { weightName } from './weight-name.js';

/** In order of trust: at equal confidence the earlier source wins. */
const SOURCES: readonly PathSource[] = [
  userMap,
  manifest,
  expertName,
  nameScopes,
  foldedFrom,
  weightName,
  nodeName,
  outputName,
  biasName,
  experts,
  structure,
];

/** Sources that know parameters: an expert in one tensor is part of one, and others name the module around all of them. */
const OF_PARAMETERS: ReadonlySet<PathSource> = new Set([
  userMap,
  manifest,
  expertName,
  foldedFrom,
  weightName,
  experts,
]);

/** A guess must reach this to give its path to a second site when the first choice is taken. */
const SECOND_CHOICE = 0.6;

export interface NamedDraft {
  readonly draft: Draft;
  readonly path: string;
  readonly callOf?: string;
  readonly guess: PathGuess;
  readonly guesses: readonly PathGuess[];
}

export function nameDrafts(
  model: Model,
  drafts: readonly Draft[],
  userPaths: ReadonlyMap<string, string> = new Map(),
): NamedDraft[] {
  const context: PathContext = {
    model,
    drafts,
    userPaths,
    readers: group(drafts, (draft) => draft.weight.value),
    biasReaders: group(drafts, (draft) => (draft.kind === 'linear' ? draft.bias?.value : undefined)),
  };
  const normalise = exporterOf(model).path;
  const guesses = new Map<Draft, PathGuess[]>(drafts.map((draft) => [draft, []]));
  for (const source of SOURCES)
    for (const [draft, { path, confidence }] of source.propose(context)) {
      if (draft.weight.slice !== undefined && !OF_PARAMETERS.has(source)) continue;
      guesses.get(draft)?.push({
        path: (source.spelling === 'exporter' ? normalise(path) : path) + numberOf(draft),
        confidence,
        source: source.id,
      });
    }
  return resolve(drafts, guesses, twinTest(model));
}

/** Experts in one tensor are numbered. */
function numberOf({ weight: { slice } }: Draft): string {
  return slice === undefined ? '' : `.${slice.index}`;
}

function group(
  drafts: readonly Draft[],
  key: (draft: Draft) => Value | undefined,
): ReadonlyMap<Value, readonly Draft[]> {
  const groups = new Map<Value, Draft[]>();
  for (const draft of drafts) {
    const value = key(draft);
    if (value === undefined) continue;
    const members = groups.get(value);
    if (members === undefined) groups.set(value, [draft]);
    else members.push(draft);
  }
  return groups;
}

/** Surest drafts choose first, in order of execution; a path that is taken is left to its owner. */
function resolve(
  drafts: readonly Draft[],
  guesses: ReadonlyMap<Draft, readonly PathGuess[]>,
  twins: (a: Draft, b: Draft) => boolean,
): NamedDraft[] {
  const sorted = drafts.map((draft, order) => ({
    draft,
    order,
    guesses: [...(guesses.get(draft) ?? [])].sort((a, b) => b.confidence - a.confidence),
  }));
  const named: (NamedDraft | undefined)[] = drafts.map(() => undefined);
  const owners = new Map<string, Draft>();
  const byConfidence = [...sorted].sort(
    (a, b) => (b.guesses[0]?.confidence ?? 0) - (a.guesses[0]?.confidence ?? 0) || a.order - b.order,
  );
  for (const { draft, order, guesses: own } of byConfidence) {
    const best = own[0];
    if (best === undefined) continue;
    const owner = owners.get(best.path);
    const sameModule =
      owner !== undefined &&
      owner.kind === draft.kind &&
      sameSide(owner, draft) &&
      (owner.weight.value === draft.weight.value ||
        (best.confidence >= SECOND_CHOICE && twins(owner, draft)));
    const untaken = own.filter(({ path }) => !owners.has(path));
    // A number tells calls and copies apart; a linear that has only the name of a tied table takes what is left.
    const free =
      untaken.find((guess) => guess === best || guess.confidence >= SECOND_CHOICE) ??
      (owner?.kind === draft.kind ? undefined : untaken[0]);
    const guess = sameModule ? best : (free ?? best);
    const path = owners.has(guess.path) ? numbered(guess.path, owners) : guess.path;
    owners.set(path, draft);
    named[order] = {
      draft,
      path,
      guess,
      guesses: own,
      ...(sameModule ? { callOf: best.path } : {}),
    };
  }
  return named.filter((one) => one !== undefined);
}

/** A module that reads the transpose of another's weight (tied autoencoders) is no call of it: other sizes, other updates. */
function sameSide(a: Draft, b: Draft): boolean {
  return a.kind !== 'linear' || b.kind !== 'linear' || a.weight.transposed === b.weight.transposed;
}

function numbered(path: string, owners: ReadonlyMap<string, Draft>): string {
  let n = 2;
  while (owners.has(`${path}#${n}`)) n++;
  return `${path}#${n}`;
}
