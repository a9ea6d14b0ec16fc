/**
 * Module paths of places that own no weight. They come from the linears around: the projections of an attention lie in
 * the attention module, the linears of a block in the block's. Where a block's linears have no module but the whole
 * layer in common, `attention` or `ffn` is added. Paths are unique among the sites of a kind; the same module called
 * again is another call of it, as with linears.
 */
import type { LinearSite, PathGuess } from '../site.js';

/** Components of the path without the number of a further call. */
function componentsOf({ path, callOf }: LinearSite): string[] {
  return (callOf ?? path).split('.');
}

/**
 * The longest path that all modules lie in, not counting their own last components. A path that others lie in is that of
 * a module with several linears (projections inside a fused attention) and counts whole.
 */
export function commonModule(sites: readonly LinearSite[]): string {
  const paths = sites.map((site) => componentsOf(site).join('.'));
  const [first, ...rest] = sites.map((site, i) => {
    const holds = paths.some((path) => path.startsWith(`${paths[i]}.`));
    return holds ? componentsOf(site) : componentsOf(site).slice(0, -1);
  });
  const common: string[] = [];
  for (const [i, component] of (first ?? []).entries()) {
    if (!rest.every((components) => components[i] === component)) break;
    common.push(component);
  }
  return common.join('.');
}

/** How sure the least sure of the paths is. */
export function leastConfidence(sites: readonly LinearSite[]): number {
  return sites.reduce((least, { confidence }) => Math.min(least, confidence), 1);
}

export interface Naming {
  readonly path: string;
  readonly confidence: number;
  readonly source: string;
  readonly guesses: readonly PathGuess[];
  readonly callOf?: string;
}

/** Hands out paths of one kind, each once. `again`: every linear of the site is a further call of its module. */
export class Namer {
  readonly #taken = new Set<string>();

  name(path: string, confidence: number, source: string, again = false): Naming {
    let unique = path;
    for (let n = 2; this.#taken.has(unique); n++) unique = `${path}#${n}`;
    this.#taken.add(unique);
    const guess = { path, confidence, source };
    const called = again && unique !== path ? { callOf: path } : {};
    return { path: unique, confidence, source, guesses: [guess], ...called };
  }
}
