import { z } from 'zod';
import { fail } from '../../src/errors.js';
import { normal, type Random, uniform } from '../../src/initializer.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import type { PromptDims } from '../sites/views.js';
import { derived } from './contract/derived.js';
import { defineMethod, type Impossible, type ParamSpec } from './contract/method.js';
import type { PeftFile } from './contract/peft-format.js';

const config = z
  .strictObject({
    length: z.int().min(1).default(20).describe('Virtual tokens l in front of the sequence'),
    init: z
      .enum(['normal', 'uniform', 'vocabulary', 'text'])
      .default('normal')
      .describe(
        'Initial embeddings: normal (N(0, 1)), uniform (±0.5), vocabulary (of tokens drawn at random), text (of `tokens`)',
      ),
    vocabulary: z
      .int()
      .min(1)
      .optional()
      .describe(
        'Draw from this many first tokens of the vocabulary; default: all (the paper: the 5000 most common)',
      ),
    tokens: z
      .array(z.int().min(0))
      .min(1)
      .optional()
      .describe('Ids of the tokens of the text, for `init: text`; repeated or cut to the length'),
  })
  .refine(({ init, tokens }) => (init === 'text') === (tokens !== undefined), {
    path: ['tokens'],
    message: "token ids of a text go with init 'text', and it needs them",
  });

type Config = z.output<typeof config>;

/** Why no prompt folds. */
export const PROMPT_IMPOSSIBLE: Impossible = {
  impossible:
    'virtual tokens make the sequence longer, which no weight of the model does; serve them with emit --target adapted, or train a method that folds, such as lora',
};

/** What to do about models whose sequence cannot grow. */
export const PROMPT_OTHERWISE =
  'Export with a symbolic sequence axis (dynamic_axes, dynamic_shapes), without cache inputs; or use prefix or lora, which leave the sequence as it is';

/** Distinct numbers below `count`, as long as there are enough. */
function draw(length: number, count: number, random: Random): number[] {
  const drawn = new Set<number>();
  const ids: number[] = [];
  while (ids.length < length) {
    const id = Math.floor(random() * count);
    if (drawn.has(id) && drawn.size < count) continue;
    drawn.add(id);
    ids.push(id);
  }
  return ids;
}

/** Ids of the tokens whose embeddings the prompt starts as. */
function textOf({ vocab, path }: PromptDims, tokens: readonly number[], length: number): number[] {
  const unknown = tokens.find((id) => id >= vocab);
  if (unknown !== undefined)
    fail('E_USAGE', {
      message: `Token ${unknown} is not in the vocabulary of ${vocab}`,
      where: path,
      remedy: "Encode the text with the model's own tokenizer",
    });
  return Array.from({ length }, (_, i) => tokens[i % tokens.length] as number);
}

function initOf(site: PromptDims, { init, length, vocabulary, tokens = [] }: Config): ParamSpec['init'] {
  switch (init) {
    case 'normal':
      return normal(1);
    case 'uniform':
      return uniform(0.5);
    case 'vocabulary':
      return derived((op, { w }, random) =>
        op.Gather(w, draw(length, Math.min(vocabulary ?? site.vocab, site.vocab), random)),
      );
    case 'text': {
      const ids = textOf(site, tokens, length);
      return derived((op, { w }) => op.Gather(w, ids));
    }
  }
}

/**
 * Prompt tuning. l trained embeddings stand in front of the embedded tokens: `E' = [P; W[ids]]`, with everything else that
 * has a number per token extended: masks by ones, positions counted from the first virtual token. Outputs keep their
 * shape: rows of virtual tokens are cut off. Training does not start at the base.
 */
export default defineMethod({
  id: 'prompt',
  summary: 'Trained embeddings of virtual tokens in front of the sequence',
  paper: { title: 'The Power of Scale for Parameter-Efficient Prompt Tuning', arxiv: '2104.08691' },
  config,
  sites: {
    prompt: {
      params: (site, config) => ({
        prompt: { shape: [config.length, site.dim], init: initOf(site, config), key: 'prompt_embeddings' },
      }),
      attach: (_op, _site, { prompt }) => ({ prompt }),
      fold: PROMPT_IMPOSSIBLE,
      byRow: { params: { prompt: 'stacked' } },
    },
  },
  startsAsBase: false,
  learningRate: 3e-2,
  otherwise: PROMPT_OTHERWISE,
  defaultTargets: 'all',
  peft: {
    types: ['PROMPT_TUNING', 'P_TUNING', 'CPT', 'MULTITASK_PROMPT_TUNING'],
    refuses: ({ num_tasks: tasks }) =>
      typeof tasks === 'number' && tasks > 1
        ? `its prompts are by task, of which it has ${tasks}; save the prompt of one task as PROMPT_TUNING`
        : undefined,
    rearranged: promptOfTask,
    tensors: {},
    whole: {
      key: 'prompt_embeddings',
      shape: ([prompt]) => prompt?.shape ?? [],
      at: (i) => i,
    },
    settings: (_config, module) => ({ length: module?.shapes.get('prompt_embeddings')?.[0] }),
    config: ({ length }) => ({ num_virtual_tokens: length, prompt_tuning_init: 'RANDOM' }),
  },
});

const FACTORS = { columns: 'prefix_task_cols', rows: 'prefix_task_rows' } as const;

/** The prompt of a task in a file of several: what all tasks share times a product of its own, element by element. */
async function promptOfTask({ tensors, numbers }: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const [shared, columns, rows] = ['prompt_embeddings', FACTORS.columns, FACTORS.rows].map((key) =>
    tensors.get(key),
  );
  if (shared === undefined || columns === undefined || rows === undefined) return tensors;
  const [prompt, left, right] = await Promise.all([shared, columns, rows].map(numbers));
  const [, , rank = 0] = columns.dims;
  const [, width = 0] = shared.dims;
  const own = Float32Array.from(prompt as Float64Array, (value, i) => {
    const [token, at] = [Math.floor(i / width), i % width];
    let factor = 0;
    for (let r = 0; r < rank; r++)
      factor +=
        ((left as Float64Array)[token * rank + r] as number) *
        ((right as Float64Array)[r * width + at] as number);
    return value * factor;
  });
  return new Map([
    ...[...tensors].filter(([key]) => key !== FACTORS.columns && key !== FACTORS.rows),
    ['prompt_embeddings', tensorOfBytes('float32', shared.dims, new Uint8Array(own.buffer))],
  ]);
}
