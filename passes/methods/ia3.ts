import { z } from 'zod';
import { ones } from '../../src/initializer.js';
import { fullMatch } from '../sites/python-regex.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod } from './method.js';

const config = z.strictObject({
  feedforward: z
    .union([z.string().min(1), z.array(z.string())])
    .optional()
    .describe(
      'Modules whose input is scaled instead of their output: names or path endings, or one regular expression (PEFT feedforward_modules). Default: those in the role down',
    ),
});

/** Whether the vector scales what the module reads. */
function onInput({ path, role }: LinearDims, { feedforward }: z.output<typeof config>): boolean {
  if (feedforward === undefined) return role === 'down';
  // Further calls of a module are `<path>#2`, …
  const module = path.replace(/#\d+$/, '');
  return typeof feedforward === 'string'
    ? fullMatch(feedforward).test(module)
    : feedforward.some((name) => module === name || module.endsWith(`.${name}`));
}

/**
 * (IA)³: learned vectors scale keys, values and the inner activations of the feed-forward block. Keys and values, and any
 * module that `feedforward` does not name: `y' = (x W + b)·l`; feed-forward: `y' = (x·l) W + b`. Vectors start at one.
 * The fold is exact: columns of W and b times l, or rows of W times l. A packed projection (GPT-2's c_attn) takes one
 * vector over all its outputs, as PEFT's default does, or its parts key and value one each, as the paper does.
 */
export default defineMethod({
  id: 'ia3',
  summary: 'Scale keys, values and feed-forward activations by learned vectors',
  paper: {
    title: 'Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning',
    arxiv: '2205.05638',
  },
  config,
  defaultTargets: ['role:key', 'role:value', 'role:down'],
  sites: {
    linear: {
      // Shapes as PEFT stores them.
      params: (site, config) => ({
        l: { shape: onInput(site, config) ? [1, site.inDim] : [site.outDim, 1], init: ones, key: 'ia3_l' },
      }),
      attach: (op, site, { l }, config) =>
        onInput(site, config)
          ? { x: op.Mul(site.x, op.Reshape(l, [site.inDim])) }
          : { y: op.Mul(site.y, op.Reshape(l, [site.outDim])) },
      fold: (op, { w, b }, { l }, config, site) => {
        const scaled = { w: op.Mul(w, op.Transpose(l, { perm: [1, 0] })) };
        if (onInput(site, config) || b === undefined) return scaled;
        return { ...scaled, b: op.Mul(b, op.Reshape(l, [site.outDim])) };
      },
    },
  },
});
