import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamSpecs } from './contract/method.js';
import type { PeftConfig, PeftModule } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

const config = z.strictObject({
  tokens: z.array(z.int().min(0)).min(1).default([0]).describe('Ids of the tokens whose embeddings train'),
});

type Config = z.output<typeof config>;

/** Ids at a module: a list holds for the embedding that there is, an object says where. */
function tokensOf(fields: PeftConfig, module: PeftModule | undefined): unknown {
  const ids = fields.token_indices ?? fields.trainable_token_indices;
  if (Array.isArray(ids) || typeof ids !== 'object' || ids === null) return ids;
  const found = Object.entries(ids).find(
    ([name]) => module === undefined || module.name === name || module.name.endsWith(`.${name}`),
  );
  return found?.[1];
}

function rowsOf(width: number, { tokens }: Config): ParamSpecs<'rows'> {
  return { rows: { shape: [tokens.length, width], init: zeros, key: 'trainable_tokens_delta' } };
}

/** A table [vocab, width] with the rows of the tokens replaced. */
function replaced(op: Ops, table: Value, rows: Value, { tokens }: Config): Value {
  return op.ScatterND(table, op.Unsqueeze(op.Constant({ value_ints: tokens }), [1]), rows);
}

/** Embeddings of chosen tokens: `W'[token] = v`. An output head that shares the embedding takes them as columns. */
export default defineMethod({
  id: 'trainable-tokens',
  summary: 'Embeddings of chosen tokens',
  paper: { title: 'PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods', arxiv: '2303.15647' },
  config,
  internal: ofFiles('TRAINABLE_TOKENS'),
  startsAsBase: false,
  sites: {
    embedding: {
      params: ({ dim }, config) => rowsOf(dim, config),
      attach: (op, { w }, { rows }, config) => ({ w: replaced(op, w, rows, config) }),
      fold: (op, { w }, { rows }, config) => ({ w: replaced(op, w, rows, config) }),
    },
    linear: onWeights(
      ({ inDim }, config: Config) => rowsOf(inDim, config),
      (op, { w }, { rows }, config) => {
        const table = op.Transpose(w, { perm: [1, 0] });
        return { w: op.Transpose(replaced(op, table, rows, config), { perm: [1, 0] }) };
      },
    ),
  },
  peft: {
    types: ['TRAINABLE_TOKENS'],
    accompanies: true,
    followsTies: true,
    tensors: {
      embedding: { rows: { key: 'trainable_tokens_delta' } },
      linear: { rows: { key: 'trainable_tokens_delta' } },
    },
    settings: (fields, module) => ({ tokens: tokensOf(fields, module) }),
    wrapper: 'token_adapter.',
    config: ({ tokens }) => ({ token_indices: tokens }),
    accompany: (modules) => ({
      trainable_token_indices: Object.fromEntries(
        modules.map(({ path, settings }) => [path, settings.tokens]),
      ),
    }),
  },
});
