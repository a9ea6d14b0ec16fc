/** Adapters of the model as a whole: one tensor, cut for all sites of the method. */
import { type InsertPlan, type PlannedModule, planInsert } from '../../passes/insert/plan.js';
import { type Method, siteKindsOf } from '../../passes/methods/contract/method.js';
import type { PeftSlice, PeftWhole } from '../../passes/methods/contract/peft-format.js';
import { opened } from '../../passes/sites/opened.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import type { Tensor } from '../../src/tensor.js';
import { loadTensor } from '../host-tensor.js';
import type { FormattedMethod } from './formats.js';
import { sliceOf } from './layout.js';
import type { PeftFolder } from './source.js';

/** The plan for all sites of the method. Throws E_INVALID_DATA without the tensor, E_NO_MATCH without a site. */
export function planWhole(
  base: Model,
  { method, format }: FormattedMethod,
  tensor: Tensor | undefined,
  { config, path }: PeftFolder,
  options: { readonly methods?: readonly Method[]; readonly paths?: ReadonlyMap<string, string> },
): { readonly plan: InsertPlan } {
  const { key } = format.whole as PeftWhole;
  if (tensor === undefined)
    return fail('E_INVALID_DATA', {
      message: `The file lacks '${key}'`,
      where: path,
      remedy: 'The folder is incomplete; save the adapter again',
    });
  const settings = format.settings(config, { path: '', name: '', shapes: new Map([[key, tensor.dims]]) });
  const plan = planInsert(
    opened(base, siteKindsOf(method)),
    [{ method, config: settings, targeting: { targets: 'all' } }],
    {
      ...(options.methods === undefined ? {} : { methods: options.methods }),
      ...(options.paths === undefined ? {} : { paths: options.paths }),
    },
  );
  return { plan };
}

/** The parameters of the modules, cut from the tensor, by our keys. */
export async function wholeTensors(
  { format }: FormattedMethod,
  tensor: Tensor,
  modules: readonly PlannedModule[],
  { path }: PeftFolder,
): Promise<Map<string, Tensor>> {
  const whole = format.whole as PeftWhole;
  const slices = slicesOf(
    modules.map(({ kind, params }) => ({
      kind,
      params: params.map(({ role, key, spec }) => ({ role, key, shape: spec.shape })),
    })),
  );
  const wanted = whole.shape(slices.map(({ slice }) => slice));
  if (wanted.join() !== tensor.dims.join())
    fail('E_INVALID_DATA', {
      message: `'${whole.key}' is [${tensor.dims.join(', ')}]; the model takes [${wanted.join(', ')}]`,
      where: path,
      remedy: 'The adapter is of another model',
    });
  const host = await loadTensor(tensor);
  return new Map(slices.map(({ key, slice }) => [key, sliceOf(host, whole, slice)]));
}

export interface SliceSource {
  readonly kind: string;
  readonly params: readonly {
    readonly role: string;
    readonly key: string;
    readonly shape: readonly number[];
  }[];
}

/** Where the parameters of modules lie, modules in model order. */
export function slicesOf(
  modules: readonly SliceSource[],
): { readonly key: string; readonly slice: PeftSlice }[] {
  const own = modules.filter(({ params }) => params.length > 0);
  return own.flatMap(({ params }, index) =>
    params.map(({ role, key, shape }) => ({ key, slice: { role, shape, index, count: own.length } })),
  );
}
