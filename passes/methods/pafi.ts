import { z } from 'zod';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { type DerivedInit, derived } from './contract/derived.js';
import { defineMethod, type ParamSpec, type ParamSpecs, type ParamValues } from './contract/method.js';
import type { SurveyContext, SurveyedSite, SurveyResult } from './contract/survey.js';
import { SHAPES_OF, SLOT_OF, TENSORS, type TensorName, type TensorShapes } from './parts/in-place.js';
import { placesInFile } from './parts/mask-file.js';
import { placesOf, type Selection, selectSmallest } from './parts/smallest.js';

const DEFAULT_RATIO = 0.005;

const selection = z.strictObject({ threshold: z.number(), ties: z.int(), count: z.int().min(1) });

const config = z
  .strictObject({
    ratio: z
      .number()
      .gt(0, 'a ratio of 0 trains nothing: give a share such as 0.005, or leave the method out')
      .max(1, 'a ratio above 1 is more than all weights: give a share such as 0.005, or use the method full')
      .optional()
      .describe(`Share of the weights that trains, those of smallest magnitude; default ${DEFAULT_RATIO}`),
    scope: z
      .enum(['model', 'tensor'])
      .default('model')
      .describe('Whether the share is of all chosen tensors together, with one threshold, or of each'),
    biases: z
      .boolean()
      .default(false)
      .describe('Whether biases and offsets of norms are among the tensors, too'),
    mask: z
      .string()
      .min(1)
      .optional()
      .describe(
        'A safetensors file that chooses the weights instead: by module path, boolean masks [in, out] or integer places in the row-major [in, out] matrix',
      ),
    selected: z
      .strictObject({ weight: selection.optional(), bias: selection.optional() })
      .optional()
      .describe('What was found in the weights; set by the insertion'),
  })
  .refine(({ ratio, mask }) => ratio === undefined || mask === undefined, {
    message: 'ratio and mask exclude each other: the mask file chooses the weights',
  });

type Config = z.output<typeof config>;

/** Tensors that a configuration looks at. */
function chosen(shapes: TensorShapes, { biases }: Config): TensorName[] {
  return TENSORS.filter((name) => shapes[name] !== undefined && (biases || name === 'weight'));
}

/** Roles of parameters for a tensor; the weight's have PEFT-like names of their own. */
const ROLES = {
  weight: { indices: 'indices', values: 'values' },
  bias: { indices: 'bias_indices', values: 'bias_values' },
} as const;

const PLACES = [ROLES.weight.indices, ROLES.bias.indices];

function params(shapes: TensorShapes, { selected }: Config): ParamSpecs {
  if (selected === undefined)
    return fail('E_USAGE', {
      message: 'pafi chooses weights by their size, and nobody has looked at them',
      remedy: "Call the library's insert, which reads the weights, instead of the pass",
    });
  return Object.fromEntries(
    TENSORS.flatMap((name): [string, ParamSpec][] => {
      const found = selected[name];
      if (found === undefined || shapes[name] === undefined) return [];
      const { indices, values } = ROLES[name];
      const places = (data: Float64Array, arrays: Readonly<Record<string, BigInt64Array>>) =>
        arrays[name] ?? placesOf(data, found);
      const stored: DerivedInit['of'] = (_op, tensors) => tensors[SLOT_OF[name]] as Value;
      const shape = [found.count];
      return [
        [
          indices,
          {
            shape,
            dtype: 'int64',
            trainable: false,
            key: `pafi_${indices}`,
            init: derived(stored, ({ data }, arrays) => places(data, arrays)),
          },
        ],
        [
          values,
          {
            shape,
            key: `pafi_${values}`,
            init: derived(stored, ({ data }, arrays) =>
              Float64Array.from(places(data, arrays), (place) => data[Number(place)] as number),
            ),
          },
        ],
      ];
    }),
  );
}

/** The tensors with the trained entries in their places. */
function placed(
  op: Ops,
  stored: { readonly w: Value; readonly b?: Value | undefined },
  params: ParamValues,
  shapes: TensorShapes,
): { w?: Value; b?: Value } {
  const result: { w?: Value; b?: Value } = {};
  for (const name of TENSORS) {
    const { indices, values } = ROLES[name];
    const [places, entries, tensor] = [params[indices], params[values], stored[SLOT_OF[name]]];
    if (places === undefined || entries === undefined || tensor === undefined) continue;
    const shape = shapes[name] ?? [];
    const flat = shape.length === 1 ? tensor : op.Reshape(tensor, [-1]);
    const changed = op.ScatterElements(flat, places, entries, { axis: 0 });
    result[SLOT_OF[name]] = shape.length === 1 ? changed : op.Reshape(changed, shape);
  }
  return result;
}

interface Chosen {
  readonly site: SurveyedSite;
  readonly name: TensorName;
}

function shapesOf({ kind, dims }: SurveyedSite): TensorShapes {
  return (SHAPES_OF as Readonly<Record<string, (dims: never) => TensorShapes>>)[kind]?.(dims as never) ?? {};
}

async function survey(
  sites: readonly SurveyedSite[],
  given: Record<string, unknown>,
  context: SurveyContext,
): Promise<ReadonlyMap<string, SurveyResult>> {
  const config = given as Config;
  const tensors = sites.flatMap((site) =>
    chosen(shapesOf(site), config).map((name): Chosen => ({ site, name })),
  );
  const found = new Map<SurveyedSite, { [T in TensorName]?: Selection }>();
  const arrays = new Map<SurveyedSite, Record<string, BigInt64Array>>();
  const add = ({ site, name }: Chosen, selection: Selection): void => {
    if (selection.count > 0) found.set(site, { ...found.get(site), [name]: selection });
  };
  if (config.mask !== undefined) {
    const file = context.tensors(config.mask);
    for (const tensor of tensors) {
      const { site, name } = tensor;
      const places = await placesInFile(file, config.mask, site.path, name, shapesOf(site)[name] ?? []);
      if (places === undefined) continue;
      add(tensor, { threshold: 0, ties: 0, count: places.length });
      arrays.set(site, { ...arrays.get(site), [name]: places });
    }
  } else {
    const ratio = config.ratio ?? DEFAULT_RATIO;
    const groups = config.scope === 'model' ? [tensors] : tensors.map((tensor) => [tensor]);
    for (const group of groups) {
      const blocks = group.map(
        ({ site, name }) =>
          () =>
            site.read(SLOT_OF[name]),
      );
      const selections = await selectSmallest(blocks, ratio);
      for (const [i, tensor] of group.entries())
        if (selections?.[i] !== undefined) add(tensor, selections[i]);
    }
  }
  const skip =
    config.mask === undefined
      ? `none of its weights is among the share of ${config.ratio ?? DEFAULT_RATIO} that trains; raise ratio, or set scope: tensor`
      : `${config.mask} chooses none of its weights`;
  return new Map(
    sites.map((site): [string, SurveyResult] => {
      const selected = found.get(site);
      return [
        site.path,
        selected === undefined ? { skip } : { facts: { selected }, arrays: arrays.get(site) ?? {} },
      ];
    }),
  );
}

/**
 * PaFi: the weights of smallest magnitude train and the rest is frozen, one mask for all tasks and without data:
 * `W' = W with W'[i] = v_i at the floor(ratio·n) places of smallest |W|`. Only v is trained: gradients and moments have its
 * size, and v holds the entries themselves, so weight decay pulls each trained weight towards zero and leaves the frozen
 * ones alone, as AdamW on the weight under the mask would. The adapter file holds places (int64, in the row-major
 * [in, out] matrix) and entries; the fold puts these in place. Where magnitudes are equal at the bound, the first modules
 * win. A mask from a file may choose the places instead; the file of another PaFi adapter is one.
 */
export default defineMethod({
  id: 'pafi',
  summary: 'Train the weights of smallest magnitude in place',
  paper: {
    title: 'Parameter-Efficient Fine-Tuning without Introducing New Latency',
    arxiv: '2305.16742',
  },
  config,
  survey,
  sites: {
    linear: {
      places: PLACES,
      params: (site, config) => params(SHAPES_OF.linear(site), config),
      attach: (op, site, params) => placed(op, site, params, SHAPES_OF.linear(site)),
      fold: (op, stored, params, _config, site) => placed(op, stored, params, SHAPES_OF.linear(site)),
    },
    embedding: {
      places: PLACES,
      params: (site, config) => params(SHAPES_OF.embedding(site), config),
      attach: (op, site, params) => placed(op, site, params, SHAPES_OF.embedding(site)) as { w: Value },
      fold: (op, stored, params, _config, site) =>
        placed(op, stored, params, SHAPES_OF.embedding(site)) as { w: Value },
    },
    norm: {
      places: PLACES,
      params: (site, config) => params(SHAPES_OF.norm(site), config),
      attach: (op, site, params) => placed(op, site, params, SHAPES_OF.norm(site)),
      fold: (op, stored, params, _config, site) => placed(op, stored, params, SHAPES_OF.norm(site)),
    },
  },
});
