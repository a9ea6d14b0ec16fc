/**
 * Which of the vectors of a TinyLoRA file is whose. The file numbers them in the order of PyTorch's modules, which nothing
 * in it says; but the random matrices of every module were drawn with a seed that is the number of the module.
 */
import { fail } from '../../../src/errors.js';
import type { Tensor } from '../../../src/tensor.js';
import { numberOf, type PeftFile } from '../contract/peft-format.js';
import { normals } from './torch-random.js';

const VECTOR = 'base_model.tinylora_v.';
const MATRICES = '.tinylora_P';
const OWN = '.tinylora_v';

/** Largest difference of matrices that were stored in half precision, in units of their standard deviation. */
const TOLERANCE = 0.05;

/** The tensors with a vector at every module, `<module>.tinylora_v`. Throws E_INVALID_DATA where none is a module's. */
export async function sharedVectors(file: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const { tensors, path } = file;
  const arranged = new Map([...tensors].filter(([key]) => !key.startsWith(VECTOR)));
  for (const [module, group] of await groupsOf(file)) {
    const vector =
      tensors.get(`${VECTOR}${group}`) ??
      fail('E_INVALID_DATA', {
        message: `The file lacks '${VECTOR}${group}'`,
        where: path,
        remedy: 'The folder is incomplete; save the adapter again',
      });
    arranged.set(`${module}${OWN}`, vector);
  }
  return arranged;
}

/** The inverse: one vector by group. Throws E_UNSUPPORTED where modules of a group have different ones. */
export async function groupedVectors(file: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const { tensors, numbers } = file;
  const stored = new Map([...tensors].filter(([key]) => !key.endsWith(OWN)));
  for (const [module, group] of await groupsOf(file)) {
    const own = tensors.get(`${module}${OWN}`) as Tensor;
    const known = stored.get(`${VECTOR}${group}`) ?? own;
    if (known !== own && String(await numbers(known)) !== String(await numbers(own)))
      fail('E_UNSUPPORTED', {
        message: `PEFT has one vector for all modules of a group, and '${module}' has another`,
        remedy: 'Fold the adapter, or serve it with emit --target adapted',
      });
    stored.set(`${VECTOR}${group}`, known);
  }
  return stored;
}

/** The number of the vector of every module. */
async function groupsOf(file: PeftFile): Promise<Map<string, number>> {
  const keys = [...file.tensors.keys()].filter((key) => key.endsWith(MATRICES));
  const found = await numbersByMatrices(file, keys);
  const groups = Math.max(1, rounded(keys.length * (1 - numberOf(file.config, 'weight_tying', 0))));
  const size = Math.max(1, Math.floor(keys.length / groups));
  return new Map(
    [...found].map(([key, number]) => [
      key.slice(0, -MATRICES.length),
      Math.min(Math.floor(number / size), groups - 1),
    ]),
  );
}

/** The seed of every module's matrices [u, r, r], N(0, 1 / r), less that of the first. */
async function numbersByMatrices(
  { config, tensors, path, numbers }: PeftFile,
  modules: readonly string[],
): Promise<Map<string, number>> {
  const seed = numberOf(config, 'projection_seed', 42);
  const found = new Map<string, number>();
  const drawn = new Map<string, Float64Array>();
  for (const key of modules) {
    const tensor = tensors.get(key) as Tensor;
    const deviation = 1 / Math.sqrt(tensor.dims[1] ?? 1);
    const stored = await numbers(tensor);
    const number = modules.findIndex((_, candidate) => {
      const id = `${candidate} ${stored.length}`;
      const expected = drawn.get(id) ?? normals(seed + candidate, stored.length);
      drawn.set(id, expected);
      return stored.every((value, i) => Math.abs(value / deviation - (expected[i] as number)) < TOLERANCE);
    });
    if (number < 0)
      fail('E_INVALID_DATA', {
        message: `The matrices '${key}' were drawn with another seed than ${seed} and the number of the module`,
        where: path,
        remedy: 'Merge it in Python (merge_and_unload) and export that model instead',
      });
    found.set(key, number);
  }
  return found;
}

/** As Python rounds: halves to the even number. */
function rounded(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}
