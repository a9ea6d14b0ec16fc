/** What every target of `emit` takes. */
import type { Method } from '../../../passes/methods/contract/method.js';
import { fail } from '../../errors.js';
import type { Model } from '../../model.js';

export interface CommonFlags {
  readonly target: string;
  readonly out?: string;
  readonly weights: 'copy' | 'link';
  readonly force?: boolean;
  readonly json?: boolean;
}

/** One command line: the model, its path, the flags, and the methods of the config file. */
export interface Emission<Flags extends CommonFlags> {
  readonly model: Model;
  readonly path: string;
  readonly flags: Flags;
  readonly methods: readonly Method[];
}

/** Where the result goes. Throws E_USAGE without `--out`. */
export function outOf({ out }: Pick<CommonFlags, 'out'>): string {
  return (
    out ?? fail('E_USAGE', { message: '--out is missing', remedy: 'Say where the result goes: -o <path>' })
  );
}
