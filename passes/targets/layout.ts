/** Names and layouts of everything that travels between host and graphs, decided once for all graphs of an emission. */
import type { AdapterParam } from '../adapter-record.js';
import type { ConfiguredOptimizer } from '../optimizers/optimizer.js';
import { type Bucket, type BucketItem, planBuckets } from './buckets.js';
import type { CarriedTensor, ManifestParameter } from './manifest.js';
import type { PublicNames } from './names.js';
import type { GroupOptions } from './options.js';
import { trainingDtype } from './trainables.js';

/** Scalar inputs and the outputs that are not carried. */
export interface FixedNames {
  readonly lr: string;
  readonly step: string;
  readonly seed: string;
  readonly lossScale: string;
  readonly loss: string;
  readonly weight: string;
  readonly gradNorm: string;
}

export function claimFixedNames(names: PublicNames): FixedNames {
  return {
    lr: names.claim('learning_rate'),
    step: names.claim('step'),
    seed: names.claim('seed'),
    lossScale: names.claim('loss_scale'),
    loss: names.claim('loss'),
    weight: names.claim('loss_weight'),
    gradNorm: names.claim('grad_norm'),
  };
}

export type StateTensor = CarriedTensor & { readonly slot: string };

export interface Layout {
  readonly items: readonly BucketItem[];
  readonly params: readonly ManifestParameter[];
  readonly buckets: readonly Bucket[];
  /** Per bucket, per slot. */
  readonly state: readonly (readonly StateTensor[])[];
  /** Per bucket: running sums of gradients. */
  readonly sums: readonly CarriedTensor[];
  readonly weightSum: CarriedTensor;
}

export interface LayoutOptions {
  readonly names: PublicNames;
  readonly optimizer: ConfiguredOptimizer;
  readonly groups: Readonly<Record<string, GroupOptions>>;
  readonly flatLimit: number | undefined;
  /** Whether the gradient of a parameter is an output of its own. */
  gradients(param: AdapterParam): boolean;
}

export function planLayout(trained: readonly AdapterParam[], options: LayoutOptions): Layout {
  const { names, optimizer, groups } = options;
  const params = trained.map((param): ManifestParameter => {
    const group = groups[param.group];
    return {
      key: param.key,
      input: param.name,
      output: names.claim(`${param.name}.next`),
      shape: param.shape,
      dtype: trainingDtype(param.dtype),
      modelDtype: param.dtype,
      group: param.group,
      weightDecay: group?.weightDecay ?? param.weightDecay,
      lrScale: (group?.lrScale ?? 1) * param.lrScale,
      ...(options.gradients(param) ? { gradient: names.claim(`${param.name}.grad`) } : {}),
    };
  });
  const buckets = planBuckets(params, options.flatLimit);
  const carried = (name: string, bucket: Bucket, init: number): CarriedTensor => {
    const input = names.claim(name);
    return {
      input,
      output: names.claim(`${input}.next`),
      shape: [...bucket.shape],
      dtype: bucket.dtype,
      init,
      members: [...bucket.members],
    };
  };
  return {
    items: params,
    params,
    buckets,
    state: buckets.map((bucket, i) =>
      optimizer.slots.map(({ name, init }) => ({
        slot: name,
        ...carried(`${optimizer.id}.${name}.${i}`, bucket, init),
      })),
    ),
    sums: buckets.map((bucket, i) => carried(`gradient_sum.${i}`, bucket, 0)),
    weightSum: {
      input: names.claim('weight_sum'),
      output: names.claim('weight_sum.next'),
      shape: [],
      dtype: 'float32',
      init: 0,
      members: [],
    },
  };
}
