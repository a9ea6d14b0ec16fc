/** Places of weights that a file of masks chooses. */
import { fail } from '../../../src/errors.js';
import { countOf } from '../../../src/types.js';
import type { SurveyedTensor } from '../contract/survey.js';
import type { TensorName } from './in-place.js';

/** What tensors of a mask file mean, by element type: which places of a tensor they choose. */
const MEANINGS: Readonly<Record<string, 'mask' | 'places'>> = {
  bool: 'mask',
  uint8: 'mask',
  int32: 'places',
  int64: 'places',
};

/**
 * Ascending places in the row-major tensor of `shape`; undefined where the file says nothing about it. Names looked for:
 * `<path>.<weight|bias>`, for weights `<path>` too, and those of pafi's own adapter files.
 * Throws E_INVALID_DATA for a mask of another shape, and for places that repeat or lie outside.
 */
export async function placesInFile(
  file: ReadonlyMap<string, SurveyedTensor>,
  label: string,
  path: string,
  name: TensorName,
  shape: readonly number[],
): Promise<BigInt64Array | undefined> {
  const own = name === 'weight' ? [path, `${path}.pafi_indices`] : [`${path}.pafi_bias_indices`];
  const key = [`${path}.${name}`, ...own].find((candidate) => file.has(candidate));
  const tensor = key === undefined ? undefined : file.get(key);
  if (tensor === undefined) return undefined;
  const where = `${label}: ${key}`;
  const meaning =
    MEANINGS[tensor.dtype] ??
    fail('E_INVALID_DATA', {
      message: `A tensor of ${tensor.dtype} is no mask`,
      where,
      remedy: 'Use bool or uint8 for masks, int32 or int64 for places',
    });
  const size = countOf(shape);
  if (meaning === 'mask') {
    if (tensor.dims.join() !== shape.join())
      fail('E_INVALID_DATA', {
        message: `The mask is [${tensor.dims.join(', ')}], the tensor [${shape.join(', ')}]`,
        where,
        remedy: 'Masks of linears are [in, out]: transpose those of torch.nn.Linear',
      });
    const mask = await tensor.read();
    const places = new BigInt64Array(mask.reduce((count, set) => count + (set === 0 ? 0 : 1), 0));
    let at = 0;
    for (const [i, set] of mask.entries()) if (set !== 0) places[at++] = BigInt(i);
    return places;
  }
  const places = BigInt64Array.from(await tensor.read(), BigInt).sort();
  for (const [i, place] of places.entries())
    if (place < 0n || place >= BigInt(size) || place === places[i - 1])
      fail('E_INVALID_DATA', {
        message: `Place ${place} ${place === places[i - 1] ? 'is given twice' : `lies outside of ${size} entries`}`,
        where,
      });
  return places;
}
