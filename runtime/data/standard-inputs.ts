/**
 * Inputs of transformers that data may leave out, and what padding looks like in each. The one table of such names.
 */
import type { ExampleTensor } from './dataset.js';

export interface StandardInput {
  readonly names: readonly string[];
  /** Value of padded places; `pad-token` is the tokenizer's. */
  readonly padding: number | 'pad-token';
  /** The tensor for an example whose tokens are `tokens`; absent where the data must have it. */
  readonly derive?: (tokens: ExampleTensor) => ExampleTensor;
}

function filled(value: number) {
  return ({ dims, values }: ExampleTensor): ExampleTensor => ({
    dims,
    values: new Int32Array(values.length).fill(value),
  });
}

function positions({ dims, values }: ExampleTensor): ExampleTensor {
  const length = dims.at(-1) ?? 1;
  return { dims, values: Int32Array.from({ length: values.length }, (_, i) => i % length) };
}

export const STANDARD_INPUTS: readonly StandardInput[] = [
  { names: ['input_ids', 'decoder_input_ids'], padding: 'pad-token' },
  { names: ['attention_mask', 'decoder_attention_mask'], padding: 0, derive: filled(1) },
  { names: ['token_type_ids', 'segment_ids'], padding: 0, derive: filled(0) },
  { names: ['position_ids', 'cache_position'], padding: 0, derive: positions },
];

/** The entry for an input name. */
export function standardInput(name: string): StandardInput | undefined {
  return STANDARD_INPUTS.find((entry) => entry.names.includes(name));
}

/** Inputs whose examples are sequences of tokens: what lengths, masks and token counts are measured on. */
export const TOKEN_INPUTS: readonly string[] = STANDARD_INPUTS.filter(
  (entry) => entry.padding === 'pad-token',
).flatMap((entry) => entry.names);
