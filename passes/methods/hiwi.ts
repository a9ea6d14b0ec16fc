import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod, type ParamValues } from './contract/method.js';
import type { SurveyResult } from './contract/survey.js';
import full from './full.js';
import { SLOT_OF, TENSORS } from './parts/in-place.js';

const config = z.strictObject({
  rank: z.int().min(1).default(4).describe('Inner dimension r of the adapter'),
  on: z.enum(TENSORS).default('bias').describe('The parameter that the adapter reads and changes'),
});

type Config = z.output<typeof config>;

/** θ + relu(θ D) U over the last axis of θ [rows, out]. */
function changed(op: Ops, value: Value, { down, up }: ParamValues<'down' | 'up'>): Value {
  return op.Add(value, op.MatMul(op.Relu(op.MatMul(value, down)), up));
}

/** The changed tensor by slot; a bias is one row. */
function replaced(
  op: Ops,
  { w, b }: { readonly w: Value; readonly b?: Value | undefined },
  params: ParamValues<'down' | 'up'>,
  { on }: Config,
  { outDim }: { readonly outDim: number },
): { w?: Value; b?: Value } {
  if (on === 'weight') return { w: changed(op, w, params) };
  // `refuses` keeps sites without a bias out.
  const row = op.Reshape(b as Value, [1, outDim]);
  return { b: op.Reshape(changed(op, row, params), [outDim]) };
}

/**
 * HiWi: the adapter reads the pre-trained parameter and not the activation, so that it can be evaluated once and thrown
 * away. Biases (default): `b' = b + relu(b D) U`, b as one row [1, out]. Weights: `W' = W + relu(W D) U`, W as [in, out],
 * so the rows that the adapter reads are the input features; D [out, r] and U [r, out] either way. D starts
 * Kaiming-uniform (bound 1/√out), U at zero. What is stored is b' (or W') alone, whatever r is: the trained site becomes
 * one of `full`. A bias of zeros gives relu(0·D) U = 0 with zero gradients and would never train; it is left out.
 */
export default defineMethod({
  id: 'hiwi',
  summary: 'Adapters that read biases or weights, evaluated once and thrown away',
  paper: {
    title: 'Parameter-Efficient Fine-Tuning without Introducing New Latency',
    arxiv: '2305.16742',
  },
  config,
  defaultTargets: ['role:up', 'role:down'],
  survey: async (sites, config) => {
    const found = new Map<string, SurveyResult>();
    if (config.on === 'weight') return found;
    for (const site of sites) {
      let dead = true;
      for await (const block of site.read('b')) dead &&= block.every((value) => value === 0);
      if (dead)
        found.set(site.path, {
          skip: 'its bias is zero, so relu(b D) U and its gradients stay zero and nothing trains; set on: weight',
        });
    }
    return found;
  },
  sites: {
    linear: {
      refuses: ({ bias }, { on }) =>
        on === 'weight' || bias ? undefined : 'it has no bias to read; set on: weight',
      params: ({ outDim }, { rank }) => ({
        down: { shape: [outDim, rank], init: uniform(1 / Math.sqrt(outDim)), key: 'hiwi_down' },
        up: { shape: [rank, outDim], init: zeros, key: 'hiwi_up' },
      }),
      attach: (op, site, params, config) => replaced(op, site, params, config, site),
      fold: replaced,
      collapse: {
        method: full,
        config: ({ on }) => ({ tensors: [on] }),
        values: (op, stored, params, config, site): ParamValues => {
          const value = replaced(op, stored, params, config, site)[SLOT_OF[config.on]];
          return { [config.on]: value as Value };
        },
      },
    },
  },
});
