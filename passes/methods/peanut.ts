import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { uniform, zeros } from '../../src/initializer.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf, type PeftTensor } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import { activateAsTransformers, TRANSFORMERS_ACTIVATIONS } from './parts/transformers-activations.js';

/** Hidden layers on either side that are read. */
const DEEPEST = 16;

const config = z.strictObject({
  rank: z.int().min(1).default(32).describe('Width r of the network'),
  depth: z.int().min(0).max(DEEPEST).default(0).describe('Hidden layers on either side'),
  activation: z.enum(TRANSFORMERS_ACTIVATIONS).default('relu').describe('Function between layers'),
  scaling: z.number().default(1).describe("Factor on the network's output"),
});
type Config = z.output<typeof config>;

const layers = (depth: number) => Array.from({ length: depth }, (_, i) => i);

/** Keys of the hidden layers. */
const hidden: Readonly<Record<string, PeftTensor>> = Object.fromEntries(
  layers(DEEPEST).flatMap((i) => [
    [`encoder${i}`, { key: `peanut_encoders.${i}.weight`, transposed: true }],
    [`decoder${i}`, { key: `peanut_decoders.${i}.weight`, transposed: true }],
  ]),
);

/**
 * A network that reads the weight: `W' = W + s·g(W) B`, g with rows of W as its inputs. `h_0 = f(W A)`,
 * `h_{i+1} = f(h_i E_i)`, and back with what went in added: `h ← f(h D_i) + h_{depth−1−i}`. The weights alone decide what
 * it gives, so that it folds.
 */
export default defineMethod({
  id: 'peanut',
  summary: 'A small network from the weight to its update',
  paper: {
    title: 'PEANuT: Parameter-Efficient Adaptation with Weight-aware Neural Tweakers',
    arxiv: '2410.01870',
  },
  config,
  internal: ofFiles('PEANUT'),
  sites: {
    linear: onWeights<Config, string>(
      ({ inDim, outDim }, { rank, depth }): ParamSpecs => {
        const init = uniform(1 / Math.sqrt(rank));
        const square = (side: string, i: number) => ({
          [`${side}${i}`]: { shape: [rank, rank], init, key: `peanut_${side}s.${i}` },
        });
        return {
          A: { shape: [outDim, rank], init: uniform(1 / Math.sqrt(inDim)), key: 'peanut_A' },
          ...Object.assign({}, ...layers(depth).map((i) => square('encoder', i))),
          ...Object.assign({}, ...layers(depth).map((i) => square('decoder', i))),
          B: { shape: [rank, outDim], init: zeros, key: 'peanut_B' },
        };
      },
      (op, { w }, params: ParamValues, { depth, activation, scaling }) => {
        const layer = (h: Value, name: string) =>
          activateAsTransformers(op, activation, op.MatMul(h, params[name] as Value));
        let h = layer(w, 'A');
        const kept: Value[] = [];
        for (const i of layers(depth)) {
          kept.push(h);
          h = layer(h, `encoder${i}`);
        }
        for (const i of layers(depth)) h = op.Add(layer(h, `decoder${i}`), kept[depth - 1 - i] as Value);
        return { w: op.Add(w, op.Mul(op.MatMul(h, params.B as Value), scaling)) };
      },
    ),
  },
  peft: {
    types: ['PEANUT'],
    refuses: ({ act_fn: name, depth }) =>
      typeof name === 'string' && !TRANSFORMERS_ACTIVATIONS.includes(name as never)
        ? `its activation '${name}' has parameters, or is none of ${TRANSFORMERS_ACTIVATIONS.join(', ')}`
        : Number(depth) > DEEPEST
          ? `it is ${String(depth)} layers deep, and ${DEEPEST} are read`
          : undefined,
    tensors: {
      linear: {
        A: { key: 'peanut_A.weight', transposed: true },
        ...hidden,
        B: { key: 'peanut_B.weight', transposed: true },
      },
    },
    settings: (fields) => ({
      rank: numberOf(fields, 'r', 32),
      depth: numberOf(fields, 'depth', 0),
      activation: fields.act_fn ?? 'relu',
      scaling: numberOf(fields, 'scaling', 1),
    }),
    config: ({ rank, depth, activation, scaling }) => ({ r: rank, depth, act_fn: activation, scaling }),
  },
});
