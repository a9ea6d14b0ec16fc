/** The batches of a recorded run as data for the trainer. */
import type { Dataset, Example } from '../../runtime/data/dataset.js';
import { loadTensor, numbersOf } from '../../runtime/host-tensor.js';
import { readSafetensors } from '../../runtime/safetensors.js';

/** Rows in every recorded batch. */
const ROWS = 4;

/** The rows of the first `count` batches (`batch<i>.<tensor>` in the file) as one data set, in order. */
export async function recordedData(path: string, count: number): Promise<Dataset> {
  const { tensors } = readSafetensors(path);
  const examples: Example[] = [];
  for (let i = 0; i < count; i++) {
    const prefix = `batch${i}.`;
    const columns = await Promise.all(
      [...tensors]
        .filter(([key]) => key.startsWith(prefix))
        .map(async ([key, tensor]) => [key.slice(prefix.length), await loadTensor(tensor)] as const),
    );
    for (let row = 0; row < ROWS; row++)
      examples.push({
        where: `batch ${i}, row ${row}`,
        tensors: new Map(
          columns.map(([key, tensor]) => {
            const dims = tensor.dims.slice(1);
            const width = dims.reduce((p, d) => p * d, 1);
            return [key, { dims, values: numbersOf(tensor).slice(row * width, (row + 1) * width) }];
          }),
        ),
      });
  }
  return { source: path, length: examples.length, example: (index) => examples[index]! };
}
