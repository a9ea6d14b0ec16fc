import { z } from 'zod';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import { ones } from '../../src/initializer.js';
import { didYouMean } from '../../src/nearest.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { fullMatch } from '../sites/python-regex.js';
import type { LinearDims } from '../sites/views.js';
import { defineMethod } from './contract/method.js';
import type { PeftConfig, PeftModule } from './contract/peft-format.js';
import type { Survey } from './contract/survey.js';
import { acrossChannels, windowSize } from './parts/convolution.js';

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
  // Further calls of a module are `<path>#2`, …
  return feedforward === undefined ? role === 'down' : isNamed(path.replace(/#\d+$/, ''), feedforward);
}

/** Channels that the vector has a number for. */
function inputs(site: LinearDims): number {
  return (site.inDim / windowSize(site)) * (site.groups ?? 1);
}

/** W with the rows of every input channel scaled; those of a convolution stand by window and, in groups, by output. */
function channelsScaled(op: Ops, w: Value, l: Value, site: LinearDims): Value {
  const { inDim, outDim, groups = 1 } = site;
  const size = windowSize(site);
  if (size === 1 && groups === 1) return op.Mul(w, op.Transpose(l, { perm: [1, 0] }));
  const channels = inDim / size;
  const apart = op.Reshape(w, [channels, size, groups, outDim / groups]);
  const scales = op.Transpose(op.Reshape(l, [groups, channels]), { perm: [1, 0] });
  return op.Reshape(op.Mul(apart, op.Reshape(scales, [channels, 1, groups, 1])), [inDim, outDim]);
}

/** PEFT's two ways of naming modules. */
function isNamed(path: string, names: string | readonly string[]): boolean {
  return typeof names === 'string'
    ? fullMatch(names).test(path)
    : names.some((name) => path === name || path.endsWith(`.${name}`));
}

/** Throws E_NO_MATCH for a name that means no module of the insertion: its vector would scale outputs unnoticed. */
const checkNames: Survey = async (sites, { feedforward }) => {
  const paths = sites.map(({ path }) => path);
  for (const name of [(feedforward as z.output<typeof config>['feedforward']) ?? []].flat()) {
    const one = typeof feedforward === 'string' ? feedforward : [name];
    if (!paths.some((path) => isNamed(path, one)))
      fail('E_NO_MATCH', {
        message: `feedforward '${name}' matches none of the modules that ia3 is put at`,
        remedy: didYouMean(
          name,
          paths.map((path) => path.split('.').slice(-name.split('.').length).join('.')),
        ),
      });
  }
  return new Map();
};

/**
 * (IA)³: learned vectors scale keys, values and the inner activations of the feed-forward block. Keys and values, and any
 * module that `feedforward` does not name: `y' = (x W + b)·l`; feed-forward: `y' = (x·l) W + b`. Vectors start at one.
 * The fold is exact: columns of W and b times l, or rows of W times l. A packed projection (GPT-2's c_attn) takes one
 * vector over all its outputs, as PEFT's default does, or its parts key and value one each, as the paper does. Weight
 * decay pulls the vectors towards zero and not towards one: train with a weight decay of 0.
 */
export default defineMethod({
  id: 'ia3',
  summary: 'Scale keys, values and feed-forward activations by learned vectors',
  paper: {
    title: 'Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning',
    arxiv: '2205.05638',
  },
  config,
  survey: checkNames,
  learningRate: 3e-3,
  defaultTargets: ['role:key', 'role:value', 'role:down'],
  sites: {
    linear: {
      // Shapes as PEFT stores them.
      params: (site, config) => ({
        l: { shape: onInput(site, config) ? [1, inputs(site)] : [site.outDim, 1], init: ones, key: 'ia3_l' },
      }),
      attach: (op, site, { l }, config) =>
        onInput(site, config)
          ? { x: op.Mul(site.x, op.Reshape(l, [site.inDim])) }
          : { y: op.Mul(site.y, op.Reshape(l, [site.outDim])) },
      byRow: {
        params: { l: 'stacked' },
        attach: (op, site, { l }, config) =>
          onInput(site, config)
            ? { x: op.Mul(site.x, l) }
            : { y: op.Mul(site.y, op.Transpose(l, { perm: [0, 2, 1] })) },
      },
      fold: (op, { w, b }, { l }, config, site) => {
        if (onInput(site, config)) return { w: channelsScaled(op, w, l, site) };
        const scaled = { w: op.Mul(w, op.Transpose(l, { perm: [1, 0] })) };
        return b === undefined ? scaled : { ...scaled, b: op.Mul(b, op.Reshape(l, [site.outDim])) };
      },
    },
  },
  weighted: { by: 'parameters' },
  peft: {
    types: ['IA3'],
    tensors: { linear: { l: { key: 'ia3_l', convolved: acrossChannels } } },
    // The shape says what a vector scales, whatever the module is called here.
    settings: (config, module) => ({
      feedforward:
        module === undefined
          ? (config.feedforward_modules ?? [])
          : scalesInputs(config, module)
            ? [module.path]
            : [],
    }),
    config: (_settings, modules) => ({
      feedforward_modules: modules.filter(({ shapes }) => shapes.l?.[0] === 1).map(({ path }) => path),
    }),
  },
});

/** A vector's shape says what it scales; at a convolution, where it does not, the names of the configuration do. */
function scalesInputs({ feedforward_modules: names }: PeftConfig, { name, shapes }: PeftModule): boolean {
  const shape = shapes.get('ia3_l') ?? [];
  if (shape.length <= 2) return shape[0] === 1;
  if (typeof names === 'string') return fullMatch(names).test(name);
  return Array.isArray(names) && names.some((end) => name.endsWith(String(end)));
}
