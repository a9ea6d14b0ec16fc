import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { PromptDims } from '../sites/views.js';
import { defineMethod, type ParamSpec, type ParamValues } from './contract/method.js';
import { dense, denseParams, table } from './parts/dense.js';
import { type LstmShape, lstm, lstmParams } from './parts/lstm.js';
import prompt, { PROMPT_IMPOSSIBLE, PROMPT_OTHERWISE } from './prompt.js';

const config = z.strictObject({
  length: z.int().min(1).default(20).describe('Virtual tokens l in front of the sequence'),
  encoder: z
    .enum(['mlp', 'lstm'])
    .default('mlp')
    .describe(
      'What computes their embeddings while training: three dense layers, or a bidirectional LSTM and two',
    ),
  hidden: z.int().min(1).optional().describe('Width of the encoder; default: that of the embeddings'),
  layers: z.int().min(1).default(2).describe('Layers of the LSTM'),
});

type Config = z.output<typeof config>;

/** Widths of the dense layers behind the embeddings or the LSTM. */
function widths({ dim }: PromptDims, { encoder, hidden = dim }: Config): number[] {
  return encoder === 'mlp' ? [dim, hidden, hidden, dim] : [2 * hidden, 2 * hidden, dim];
}

function lstmShape({ dim }: PromptDims, { length, hidden = dim, layers }: Config): LstmShape {
  return { length, inDim: dim, hidden, layers };
}

function params(site: PromptDims, config: Config): Record<string, ParamSpec> {
  const specs: Record<string, ParamSpec> = {
    embedding: table(config.length, site.dim, 'prompt_encoder.embedding'),
    ...(config.encoder === 'lstm' ? lstmParams(lstmShape(site, config), 'prompt_encoder.lstm_head') : {}),
  };
  const sizes = widths(site, config);
  for (let i = 0; i + 1 < sizes.length; i++) {
    // torch counts the activations between the layers.
    const layer = denseParams(sizes[i] as number, sizes[i + 1] as number, `prompt_encoder.mlp_head.${2 * i}`);
    specs[`dense${i}`] = layer.weight;
    specs[`dense${i}Bias`] = layer.bias;
  }
  return specs;
}

/** [length, dim] */
function encode(op: Ops, values: ParamValues, site: PromptDims, config: Config): Value {
  let x = values.embedding as Value;
  if (config.encoder === 'lstm') x = lstm(op, x, values, lstmShape(site, config));
  const layers = widths(site, config).length - 1;
  for (let i = 0; i < layers; i++) {
    x = dense(op, x, { weight: values[`dense${i}`] as Value, bias: values[`dense${i}Bias`] as Value });
    if (i + 1 < layers) x = op.Relu(x);
  }
  return x;
}

/**
 * P-tuning. Virtual tokens as in prompt tuning, computed while training: `P = MLP(E)` with three dense layers and ReLU, or
 * `P = MLP(BiLSTM(E))` with two. The encoder is evaluated once when the adapter is saved; what remains is a `prompt`.
 * Initial values as in PEFT, so that training does not start at the base.
 */
export default defineMethod({
  id: 'p-tuning',
  summary: 'Virtual tokens computed by an encoder that exists while training',
  paper: { title: 'GPT Understands, Too', arxiv: '2103.10385' },
  config,
  learningRate: 1e-2,
  sites: {
    prompt: {
      params,
      attach: (op, site, values, config) => ({ prompt: encode(op, values, site, config) }),
      fold: PROMPT_IMPOSSIBLE,
      collapse: {
        method: prompt,
        config: ({ length }) => ({ length }),
        values: (op, _stored, values, config, site) => ({ prompt: encode(op, values, site, config) }),
      },
    },
  },
  startsAsBase: false,
  otherwise: PROMPT_OTHERWISE,
  defaultTargets: 'all',
});
