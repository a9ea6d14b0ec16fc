/** The verbs, in the order of `--help`: the order of work. A verb's code is loaded when the verb is called for. */
import type { Command } from 'commander';

export interface Verb {
  readonly name: string;
  readonly load: () => Promise<() => Command>;
  /** It looks at the other verbs. */
  readonly wholeTree?: boolean;
}

export const VERBS: readonly Verb[] = [
  { name: 'inspect', load: async () => (await import('./inspect.js')).inspectCommand },
  { name: 'quantize', load: async () => (await import('./quantize.js')).quantizeCommand },
  { name: 'insert', load: async () => (await import('./insert.js')).insertCommand },
  { name: 'emit', load: async () => (await import('./emit/verb.js')).emitCommand },
  { name: 'train', load: async () => (await import('./train.js')).trainCommand },
  { name: 'eval', load: async () => (await import('./eval.js')).evalCommand },
  { name: 'adapter', load: async () => (await import('./adapter.js')).adapterCommand },
  { name: 'fold', load: async () => (await import('./fold.js')).foldCommand },
  { name: 'export', load: async () => (await import('./export.js')).exportCommand },
  { name: 'combine', load: async () => (await import('./combine.js')).combineCommand },
  { name: 'verify', load: async () => (await import('./verify.js')).verifyCommand },
  { name: 'run', load: async () => (await import('./run.js')).runCommand },
  { name: 'methods', load: async () => (await import('./methods.js')).methodsCommand },
  { name: 'print', load: async () => (await import('./print.js')).printCommand },
  { name: 'quickstart', load: async () => (await import('./quickstart.js')).quickstartCommand },
  { name: 'doctor', load: async () => (await import('./doctor.js')).doctorCommand },
  {
    name: 'completion',
    load: async () => (await import('./completion.js')).completionCommand,
    wholeTree: true,
  },
];

/** The verbs that a command line needs: the one it names, or all, for help and for what no verb is called. */
export function verbsFor(args: readonly string[]): readonly Verb[] {
  const named = VERBS.find(({ name }) => name === args[0]);
  return named === undefined || named.wholeTree === true ? VERBS : [named];
}
