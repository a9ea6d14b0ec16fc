/** Runs decoders that carry keys and values from step to step, as a serving loop does. */
import ort from 'onnxruntime-node';
import type { Model } from '../../src/model.js';
import { shapeOf } from '../../src/value-type.js';
import { type Feeds, numbers, type Results, sessionOf } from '../helpers/run.js';

export interface Decoder {
  readonly session: ort.InferenceSession;
  readonly pasts: readonly { readonly name: string; readonly heads: number; readonly head: number }[];
  /** The model chooses its branch by `use_cache_branch`. */
  readonly merged: boolean;
}

export async function decoderOf(model: Model): Promise<Decoder> {
  const pasts = model.graph.inputs.flatMap((input) => {
    const [, heads, , head] = shapeOf(input) ?? [];
    return input.name?.startsWith('past_key_values.') === true
      ? [{ name: input.name, heads: Number(heads), head: Number(head) }]
      : [];
  });
  const merged = model.graph.inputs.some(({ name }) => name === 'use_cache_branch');
  return { session: await sessionOf(model), pasts, merged };
}

export type Past = Readonly<Record<string, ort.Tensor>>;

export interface Step {
  readonly logits: readonly number[];
  readonly past: Past;
}

function int64(values: readonly number[], dims: readonly number[]): ort.Tensor {
  return new ort.Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}

/** One pass over `ids` (rows of equal length) behind `past`, of `length` tokens; logits of all positions. */
export async function step(
  { session, pasts, merged }: Decoder,
  ids: readonly (readonly number[])[],
  past: Past | undefined,
  { length = 0, mask, first = length }: { length?: number; mask?: readonly number[]; first?: number } = {},
): Promise<Step> {
  const rows = ids.length;
  const columns = ids[0]?.length ?? 0;
  const total = length + columns;
  const feeds: Record<string, ort.Tensor> = {
    input_ids: int64(ids.flat(), [rows, columns]),
    attention_mask: int64(mask ?? new Array<number>(rows * total).fill(1), [rows, total]),
    position_ids: int64(
      ids.flatMap((row) => row.map((_, i) => first + i)),
      [rows, columns],
    ),
  };
  for (const { name, heads, head } of pasts)
    feeds[name] = past?.[name] ?? new ort.Tensor('float32', new Float32Array(0), [rows, heads, 0, head]);
  if (merged) feeds.use_cache_branch = new ort.Tensor('bool', Uint8Array.of(Number(length > 0)), [1]);
  const results = await session.run(used(session, feeds));
  return { logits: numbers(results.logits), past: presents(results) };
}

function used(session: ort.InferenceSession, feeds: Feeds): Feeds {
  return Object.fromEntries(Object.entries(feeds).filter(([name]) => session.inputNames.includes(name)));
}

function presents(results: Results): Past {
  return Object.fromEntries(
    Object.entries(results).flatMap(([name, tensor]) =>
      name.startsWith('present.') ? [[name.replace('present.', 'past_key_values.'), tensor]] : [],
    ),
  );
}

/** Greedy continuation of one prompt with the cache: what was chosen, and the logits of each chosen position. */
export async function generate(
  decoder: Decoder,
  prompt: readonly number[],
  steps: number,
): Promise<{ ids: number[]; logits: number[][] }> {
  const ids = [...prompt];
  const logits: number[][] = [];
  let past: Past | undefined;
  let done = 0;
  for (let i = 0; i < steps; i++) {
    const result = await step(decoder, [ids.slice(done)], past, { length: done });
    done = ids.length;
    past = result.past;
    const vocab = result.logits.length / (i === 0 ? prompt.length : 1);
    const last = result.logits.slice(-vocab);
    logits.push(last);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return { ids, logits };
}

/** Largest difference over the scale of what is wanted. */
export function off(found: readonly number[], wanted: readonly number[]): number {
  const scale = Math.max(...wanted.map(Math.abs));
  return Math.max(...wanted.map((value, i) => Math.abs(value - (found[i] ?? Number.NaN)))) / scale;
}
