/** Sizes and batches of the step and forward figures. */
import { z } from 'zod';
import { type HostTensor, tensorOfNumbers } from '../../host-tensor.js';
import type { SessionOptions, Tensors } from '../../session.js';

const sessionOptions = z.record(z.string(), z.unknown()) as unknown as z.ZodType<SessionOptions>;

/** Input of tasks that run a classifier again and again. */
export const runInput = z.object({
  batch: z.int(),
  sequence: z.int(),
  vocab: z.int(),
  labels: z.int(),
  runs: z.int(),
  options: sessionOptions,
});
export type RunInput = z.infer<typeof runInput>;

/** Token ids spread over the vocabulary, no padding. */
export function inputsOf({ batch, sequence, vocab }: RunInput): Tensors {
  const ids = Array.from({ length: batch * sequence }, (_, i) => (i * 7919) % vocab);
  return {
    input_ids: tensorOfNumbers('int64', [batch, sequence], ids),
    attention_mask: tensorOfNumbers(
      'int64',
      [batch, sequence],
      ids.map(() => 1),
    ),
  };
}

/** Classes in turn. */
export function labelsOf({ batch, labels }: RunInput): HostTensor {
  return tensorOfNumbers(
    'int64',
    [batch],
    Array.from({ length: batch }, (_, i) => i % labels),
  );
}

/** The same numbers in buffers of their own, for callees that take buffers over. */
export function copyOf(tensors: Tensors): Tensors {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [name, { ...tensor, data: tensor.data.slice() }]),
  );
}
