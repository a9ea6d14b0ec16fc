/** safetensors as data: every tensor has the examples along its first axis. */
import { fail } from '../../src/errors.js';
import type { Tensor } from '../../src/tensor.js';
import { byteSize, countOf } from '../../src/types.js';
import { numbersOf } from '../host-tensor.js';
import { readSafetensors } from '../safetensors.js';
import type { Dataset, ExampleTensor } from './dataset.js';

/** Opens a file; examples are read when asked for. @throws E_INVALID_DATA when the first axes differ. */
export function loadTensorData(path: string): Dataset {
  const { tensors } = readSafetensors(path);
  let length: number | undefined;
  let first = '';
  for (const [name, tensor] of tensors) {
    const rows = tensor.dims[0];
    if (rows === undefined)
      fail('E_INVALID_DATA', {
        message: `Tensor '${name}' is a scalar; data tensors have the examples along their first axis`,
        where: path,
      });
    if (length !== undefined && rows !== length)
      fail('E_INVALID_DATA', {
        message: `Tensor '${name}' has ${rows} examples, '${first}' has ${length}`,
        where: path,
        remedy: 'Give all tensors the same first axis.',
      });
    length = rows;
    first = name;
  }
  if (length === undefined || length === 0)
    fail('E_INVALID_DATA', { message: 'The data file has no examples', where: path });
  return {
    source: path,
    length,
    example: (index) => ({
      where: `${path}, example ${index}`,
      tensors: new Map([...tensors].map(([name, tensor]) => [name, row(tensor, index)])),
    }),
  };
}

function row(tensor: Tensor, index: number): ExampleTensor {
  const dims = tensor.dims.slice(1);
  const bytes = byteSize(tensor.dtype, countOf(dims));
  const data = tensor.data.read(index * bytes, bytes);
  return { dims, values: numbersOf({ dtype: tensor.dtype, dims, data }) };
}
