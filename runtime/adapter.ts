/** An adapter in memory: what it is, and its tensors, wherever they came from. */
import type { AdapterRecord } from '../passes/adapter-record.js';
import type { Tensor } from '../src/tensor.js';

export interface AdapterFile {
  readonly record: AdapterRecord;
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** SHA-256 of the file. */
  readonly digest: string;
}
