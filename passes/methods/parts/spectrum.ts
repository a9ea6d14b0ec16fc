/** Adapters whose numbers stand at random places of a matrix [out, in], which a seed says and no file holds. */
import { z } from 'zod';
import type { Value } from '../../../src/graph.js';
import { zeros } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { LinearDims } from '../../sites/views.js';
import { derived } from '../contract/derived.js';
import type { ParamSpecs } from '../contract/method.js';
import {
  isSet,
  numberOf,
  type PeftConfig,
  type PeftFormat,
  type PeftModule,
} from '../contract/peft-format.js';
import { LONGEST, randomPlaces } from './torch-random.js';

/** Settings of both methods. */
export function spectrumSettings(defaults: { readonly count: number; readonly scaling: number }) {
  return {
    count: z.int().min(1).default(defaults.count).describe('Numbers per module'),
    scaling: z.number().default(defaults.scaling).describe('Factor s on what they give'),
    seed: z.int().min(0).default(777).describe("Seed of torch's generator, which draws their places"),
  };
}

interface Settings {
  readonly count: number;
  readonly seed: number;
}

/** The numbers, and their places [2, count]: row and column. */
export function spectrumParams(
  { inDim, outDim }: LinearDims,
  { count, seed }: Settings,
  key: string,
): ParamSpecs<'spectrum' | 'places'> {
  return {
    spectrum: { shape: [count], init: zeros, key },
    places: {
      shape: [2, count],
      init: derived((op) => {
        const flat = randomPlaces(inDim * outDim, seed, count);
        const both = [
          ...flat.map((place) => Math.floor(place / inDim)),
          ...flat.map((place) => place % inDim),
        ];
        return op.Reshape(op.Constant({ value_ints: both }), [2, count]);
      }),
      dtype: 'int64',
      trainable: false,
      key: `${key}_places`,
    },
  };
}

/** Rows and columns [count] of places [2, count]. */
export function rowsAndColumns(op: Ops, places: Value): readonly [Value, Value] {
  const row = (i: number) => op.Squeeze(op.Slice(places, [i], [i + 1], [0]), [0]);
  return [row(0), row(1)];
}

/** The rules of PEFT's format that both have. */
export function spectrumFormat(
  type: string,
  key: string,
  defaults: { readonly count: number; readonly scaling: number },
): Pick<PeftFormat, 'types' | 'tensors' | 'patterns' | 'refuses'> & {
  readonly read: (fields: PeftConfig, module?: PeftModule) => Readonly<Record<string, unknown>>;
} {
  return {
    types: [type],
    tensors: { linear: { spectrum: { key } } },
    patterns: { n_frequency: 'n_frequency_pattern' },
    refuses: (fields) =>
      isSet(fields, 'random_loc_seed') || fields.random_loc_seed === 0
        ? undefined
        : 'it was drawn without a seed, so that nothing says where its numbers stand; merge it in Python before its process ends',
    read: (fields, module) => ({
      count: module?.shapes.get(key)?.[0] ?? numberOf(fields, 'n_frequency', defaults.count),
      scaling: numberOf(fields, 'scaling', defaults.scaling),
      seed: numberOf(fields, 'random_loc_seed', 777),
    }),
  };
}

/** Why a module is too large; undefined where it is not. */
export function tooLong({ inDim, outDim }: LinearDims): string | undefined {
  return inDim * outDim < LONGEST
    ? undefined
    : `it has ${inDim * outDim} entries, among which torch draws in another way from ${LONGEST} on`;
}
