/**
 * How parameters are laid out for the update. Adapters are many small tensors; an optimizer of a dozen elementwise ops
 * over each of them is mostly the overhead of launching kernels and of passing tensors in and out. So small parameters
 * of one group share a flat tensor per quantity (gradient, moments), and large ones keep their own.
 */
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { countOf, type DType } from '../../src/types.js';
import type { FlatMember } from './manifest.js';

/**
 * Most elements of a flat tensor; a parameter above it is updated on its own. The formula makes a dozen passes over a
 * handful of such tensors, which should stay in cache.
 */
export const FLAT_LIMIT = 65_536;

export interface BucketItem {
  readonly key: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly weightDecay: boolean;
  readonly lrScale: number;
}

export interface Bucket {
  readonly dtype: DType;
  readonly weightDecay: boolean;
  readonly lrScale: number;
  /** Indices into the planned items. */
  readonly items: readonly number[];
  readonly members: readonly FlatMember[];
  /** [n] for a flat bucket, the parameter's own shape otherwise. */
  readonly shape: readonly number[];
}

/** Groups items of equal settings, in order of first appearance, up to `flatLimit` elements each. */
export function planBuckets(items: readonly BucketItem[], flatLimit = FLAT_LIMIT): Bucket[] {
  const buckets: { items: number[]; size: number }[] = [];
  const open = new Map<string, { items: number[]; size: number }>();
  for (const [index, item] of items.entries()) {
    const size = countOf(item.shape);
    const group = `${item.dtype} ${item.weightDecay} ${item.lrScale}`;
    let bucket = open.get(group);
    if (bucket === undefined || bucket.size + size > flatLimit) {
      bucket = { items: [], size: 0 };
      buckets.push(bucket);
      open.set(group, bucket);
    }
    bucket.items.push(index);
    bucket.size += size;
  }
  return buckets.map((bucket) => describe(bucket.items, items));
}

function describe(indices: readonly number[], items: readonly BucketItem[]): Bucket {
  let offset = 0;
  const members = indices.map((index) => {
    const { key, shape } = items[index]!;
    const member = { key, offset, count: countOf(shape) };
    offset += member.count;
    return member;
  });
  const { dtype, weightDecay, lrScale, shape } = items[indices[0]!]!;
  return {
    dtype,
    weightDecay,
    lrScale,
    items: indices,
    members,
    shape: indices.length === 1 ? shape : [offset],
  };
}

/** The bucket's tensor, from one tensor per item (indexed like the planned items). */
export function gatherBucket(op: Ops, bucket: Bucket, perItem: readonly Value[]): Value {
  const values = bucket.items.map((index) => perItem[index]!);
  if (values.length === 1) return values[0]!;
  return op.Concat(
    values.map((value) => op.Reshape(value, [-1])),
    { axis: 0 },
  );
}

/** One tensor per item of the bucket, in the order of `bucket.items`. */
export function scatterBucket(op: Ops, bucket: Bucket, value: Value, items: readonly BucketItem[]): Value[] {
  if (bucket.items.length === 1) return [value];
  const sizes = bucket.members.map((member) => member.count);
  return op
    .Split(value, sizes, { axis: 0 }, sizes.length as number)
    .map((part, i) => op.Reshape(part, items[bucket.items[i]!]!.shape));
}
