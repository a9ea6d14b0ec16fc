/** Bases of FRoD, which files keep by what modules are for, at every module of that kind, with their inverses. */
import { fail } from '../../../src/errors.js';
import { type Tensor, tensorOfBytes } from '../../../src/tensor.js';
import type { PeftFile } from '../contract/peft-format.js';
import { inverse } from './linear-algebra/inverse.js';

const GAINS = '.frod_lambda_l';
const SHARED = /^base_model\.frod_(?:V|s_indices|s_size)\./;

/** Module and name of what stands at modules here. */
const OWN = /^base_model\.model\.(.+)\.frod_(V|inverse|s_indices)$/;

/** The tensors with `frod_V`, `frod_inverse` and `frod_s_indices` at every module. Throws E_INVALID_DATA. */
export async function sharedBases(file: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const { tensors, path } = file;
  const arranged = new Map([...tensors].filter(([key]) => !SHARED.test(key)));
  const inverses = new Map<Tensor, Tensor>();
  for (const key of tensors.keys()) {
    if (!key.endsWith(GAINS)) continue;
    const module = key.slice(0, -GAINS.length);
    const category = categoryOf(module.replace(/^base_model\.model\./, ''));
    const shared = (name: string) =>
      tensors.get(`base_model.${name}.${category}`) ??
      fail('E_INVALID_DATA', {
        message: `The file lacks 'base_model.${name}.${category}' of ${module}`,
        where: path,
        remedy: 'Save the adapter with save_projection=True',
      });
    const basis = shared('frod_V');
    const inverted = inverses.get(basis) ?? (await invertedBasis(file, basis, category));
    inverses.set(basis, inverted);
    arranged.set(`${module}.frod_V`, basis);
    arranged.set(`${module}.frod_inverse`, inverted);
    arranged.set(`${module}.frod_s_indices`, shared('frod_s_indices'));
  }
  return arranged;
}

/** The inverse: one basis by category. Throws E_UNSUPPORTED where modules of a category have different ones. */
export async function basesByCategory({ tensors, numbers }: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const stored = new Map([...tensors].filter(([key]) => !OWN.test(key)));
  for (const [key, tensor] of tensors) {
    const [, module = '', name = ''] = OWN.exec(key) ?? [];
    if (name === '' || name === 'inverse') continue;
    const category = categoryOf(module);
    const shared = `base_model.frod_${name}.${category}`;
    const known = stored.get(shared) ?? tensor;
    if (known !== tensor && String(await numbers(known)) !== String(await numbers(tensor)))
      fail('E_UNSUPPORTED', {
        message: `PEFT has one basis for all modules '${category}', and '${module}' has another`,
        remedy: 'Fold the adapter, or serve it with emit --target adapted',
      });
    stored.set(shared, known);
    if (name === 'V') stored.set(`base_model.frod_s_size.${category}`, sizesOf(tensor));
  }
  return stored;
}

function sizesOf({ dims }: Tensor): Tensor {
  const sizes = BigInt64Array.from(dims, BigInt);
  return tensorOfBytes('int64', [dims.length], new Uint8Array(sizes.buffer));
}

async function invertedBasis({ numbers, path }: PeftFile, basis: Tensor, category: string): Promise<Tensor> {
  const [size = 0] = basis.dims;
  const made =
    inverse(await numbers(basis), size) ??
    fail('E_UNSUPPORTED', {
      message: `The basis of '${category}' is singular`,
      where: path,
      remedy: 'Merge it in Python (merge_and_unload) and export that model instead',
    });
  return tensorOfBytes('float32', basis.dims, new Uint8Array(Float32Array.from(made).buffer));
}

/** What a module is for, of its path: its last two names; one where a number is the other. */
function categoryOf(path: string): string {
  const [before, parent, last = ''] = ['', '', ...path.split('.')].slice(-3);
  if (parent === undefined || parent === '' || /^\d+$/.test(parent)) return last;
  const category = `${parent}_${last}`;
  return category === 'output_dense' && before === 'attention' ? 'attention_output' : category;
}
