import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod, type ParamSpecs, type ParamValues } from './contract/method.js';
import { numberOf, type PeftModule, type PeftTensor } from './contract/peft-format.js';
import { ofFiles, onWeights } from './parts/on-weights.js';

/** What a term is: a product, a vector, a number, or zeros, which PEFT saves, too. */
const FORMS = ['lora', 'vector', 'constant', 'none'] as const;
type Form = (typeof FORMS)[number];
const TERMS = ['A', 'B', 'C', 'D', 'E'] as const;
type Term = (typeof TERMS)[number];

const form = z.enum(FORMS).default('none');
const config = z.strictObject({
  rank: z.int().min(1).default(8).describe('Inner dimension r of products'),
  A: form.describe('Factor on the weight'),
  B: form.describe('What is added to the weight'),
  C: form.describe('What the weight is multiplied by for the bias'),
  D: form.describe('Factor on the bias'),
  E: form.describe('What is added to the bias'),
});
type Config = z.output<typeof config>;

/** Rows and columns of a term, as PEFT has them; vectors of one axis have no columns. */
function sizes(term: Term, { inDim, outDim }: LinearDims): readonly [number, number | undefined] {
  if (term === 'C') return [inDim, 1];
  return [outDim, term === 'A' || term === 'B' ? inDim : undefined];
}

function termParams(term: Term, site: LinearDims, { rank, [term]: is }: Config): ParamSpecs {
  const [rows, columns] = sizes(term, site);
  const key = `glora_${term}`;
  if (is === 'lora')
    return {
      [`${term}d`]: { shape: [rows, rank], init: zeros, key: `${key}.Xd` },
      [`${term}u`]: { shape: [rank, columns ?? 1], init: zeros, key: `${key}.Xu` },
    };
  if (is === 'none') {
    const shape = columns === undefined ? [rows] : [rows, columns];
    return { [`${term}0`]: { shape, init: zeros, trainable: false, key: `${key}.zeros` } };
  }
  const shape = is === 'constant' ? [1] : columns === undefined ? [rows] : [rows, 1];
  return { [term]: { shape, init: zeros, key: `${key}.X` } };
}

/** The value of a term; undefined for zeros. */
function contribution(op: Ops, term: Term, params: ParamValues, { [term]: is }: Config): Value | undefined {
  if (is === 'none') return undefined;
  return is === 'lora' ? op.MatMul(params[`${term}d`] as Value, params[`${term}u`] as Value) : params[term];
}

const tensors: Readonly<Record<string, PeftTensor>> = Object.fromEntries(
  TERMS.flatMap((term) => [
    [`${term}d`, { key: `glora_${term}.Xd` }],
    [`${term}u`, { key: `glora_${term}.Xu` }],
    [term, { key: `glora_${term}.X` }],
    [`${term}0`, { key: `glora_${term}.zeros` }],
  ]),
);

function formOf(module: PeftModule | undefined, term: Term): Form {
  const key = `glora_${term}.X`;
  if (module === undefined || module.shapes.has(`glora_${term}.zeros`)) return 'none';
  if (module.shapes.has(`${key}d`)) return 'lora';
  const dims = module.shapes.get(key);
  return dims === undefined ? 'none' : dims.join() === '1' ? 'constant' : 'vector';
}

/**
 * Generalised LoRA: `W' = W + W ⊙ A + B` and `b' = b + b ⊙ D + E + W C`, each term a product of two factors, a vector, a
 * number or nothing. Formulas are over W [out, in], as PEFT has it; a module without a bias has the first alone.
 */
export default defineMethod({
  id: 'glora',
  summary: 'Factors and terms on weight and bias, each of a form of its own',
  paper: {
    title: 'One-for-All: Generalized LoRA for Parameter-Efficient Fine-tuning',
    arxiv: '2306.07967',
  },
  config,
  internal: ofFiles('GLORA'),
  sites: {
    linear: onWeights<Config, string>(
      (site, settings): ParamSpecs =>
        Object.assign({}, ...TERMS.map((term) => termParams(term, site, settings))),
      (op, { w, b }, params: ParamValues, settings) => {
        const [A, B, C, D, E] = TERMS.map((term) => contribution(op, term, params, settings));
        const turned = op.Transpose(w, { perm: [1, 0] });
        const scaled = A === undefined ? turned : op.Add(turned, op.Mul(turned, A));
        const weight = op.Transpose(B === undefined ? scaled : op.Add(scaled, B), { perm: [1, 0] });
        if (b === undefined) return { w: weight };
        let bias = D === undefined ? b : op.Add(b, op.Mul(b, D));
        if (E !== undefined) bias = op.Add(bias, E);
        if (C !== undefined) bias = op.Add(bias, op.Squeeze(op.MatMul(turned, C), [1]));
        return { w: weight, b: bias };
      },
    ),
  },
  peft: {
    types: ['GLORA'],
    tensors: { linear: tensors },
    settings: (fields, module) => ({
      rank:
        module?.shapes.get('glora_B.Xd')?.[1] ??
        module?.shapes.get('glora_C.Xd')?.[1] ??
        numberOf(fields, 'r', 8),
      ...Object.fromEntries(TERMS.map((term) => [term, formOf(module, term)])),
    }),
    config: ({ rank }, modules) => {
      // Terms of the bias are zeros where there is none, whatever the configuration says.
      const formIn = (term: Term) =>
        modules.map(({ settings }) => settings[term]).find((is) => is !== 'none') ?? 'none';
      return { r: rank, config_A_B: formIn('B'), config_C: formIn('C'), config_D_E: formIn('E') };
    },
  },
});
