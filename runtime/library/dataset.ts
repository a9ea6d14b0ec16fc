/** Data sets from objects in memory. */
import type { Dataset } from '../data/dataset.js';
import { tensorRecords } from '../data/jsonl.js';

/**
 * A data set of named tensors, one record per example and no batch axis: numbers, booleans or nested arrays of them.
 * ```ts
 * datasetOf([{ input_ids: [3, 14, 15], attention_mask: [1, 1, 1], labels: 1 }, …]);
 * ```
 * @throws E_INVALID_DATA for ragged arrays and values that are no numbers.
 */
export function datasetOf(
  records: readonly Readonly<Record<string, unknown>>[],
  source = 'data in memory',
): Dataset {
  return tensorRecords(
    source,
    records.map((fields, index) => ({ fields, where: `${source}, example ${index}` })),
  );
}
