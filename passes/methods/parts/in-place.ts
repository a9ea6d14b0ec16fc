/** Parameters of the base that train as they stand: their shapes by kind of site, and formulas that put them in place. */
import type { Value } from '../../../src/graph.js';
import type { EmbeddingDims, LinearDims, NormDims } from '../../sites/views.js';
import { baseValue } from '../contract/derived.js';
import type { ParamSpecs, ParamValues } from '../contract/method.js';

/** A module's own parameters, as frameworks call them. The gain of a norm is its weight, the offset its bias. */
export const TENSORS = ['weight', 'bias'] as const;
export type TensorName = (typeof TENSORS)[number];

/** Slots of sites by name of the tensor. */
export const SLOT_OF = { weight: 'w', bias: 'b' } as const;

/** Shapes of the tensors that a site has: weights as the formulas see them, [in, out]. */
export type TensorShapes = { readonly [T in TensorName]?: readonly number[] };

export const SHAPES_OF = {
  linear: ({ inDim, outDim, bias }: LinearDims): TensorShapes => ({
    weight: [inDim, outDim],
    ...(bias ? { bias: [outDim] } : {}),
  }),
  embedding: ({ vocab, dim }: EmbeddingDims): TensorShapes => ({ weight: [vocab, dim] }),
  norm: ({ dim, bias }: NormDims): TensorShapes => ({ weight: [dim], ...(bias ? { bias: [dim] } : {}) }),
};

/** Those of `wanted` that the site has, as parameters that start at the base's values, under keys `<prefix><name>`. */
export function trainedInPlace(
  shapes: TensorShapes,
  wanted: readonly TensorName[] = TENSORS,
  prefix = '',
): ParamSpecs {
  return Object.fromEntries(
    TENSORS.flatMap((name) => {
      const shape = shapes[name];
      if (shape === undefined || !wanted.includes(name)) return [];
      return [[name, { shape, init: baseValue(SLOT_OF[name]), key: `${prefix}${name}` }]];
    }),
  );
}

/** The slots that such parameters fill, in `attach` and in `fold`. */
export function inPlace({ weight, bias }: ParamValues): { readonly w?: Value; readonly b?: Value } {
  return { ...(weight === undefined ? {} : { w: weight }), ...(bias === undefined ? {} : { b: bias }) };
}
