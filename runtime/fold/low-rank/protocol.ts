/** What `LowRankKernel` and its threads say to each other. */
import type { Memory } from './engine.js';
import type { Factors } from './kernel.js';
import type { KernelDType } from './storage.js';

/** What a thread is started with. */
export interface KernelSetup {
  readonly modules: Readonly<Record<KernelDType, object>>;
  readonly memory: Memory;
}

/** Rows of a weight for a thread to update in place. Addresses are of the memory that the threads share. */
export interface RowsToUpdate extends Pick<Factors, 'rank' | 'columns'> {
  readonly dtype: KernelDType;
  /** Of the first row, and how many there are. */
  readonly at: number;
  readonly count: number;
  /** Of the left factor's column for the first row, and the bytes from one row of that factor to the next. */
  readonly leftAt: number;
  readonly leftStride: number;
  readonly rightAt: number;
  /** Where the sums go. */
  readonly sumsAt: number;
}

/** Says that the rows of that number are updated. */
export interface RowsUpdated {
  readonly id: number;
}
