/**
 * What `insert` leaves in the model metadata, so that `emit`, `train` and `fold` find the adapter's parameters by name.
 * Only this file knows the metadata key and the spelling.
 */
import { z } from 'zod';
import { fail } from '../src/errors.js';
import type { Model } from '../src/model.js';
import { DTYPE_CODES, type DType } from '../src/types.js';
import { describeIssues } from '../src/zod-issues.js';

export const ADAPTER_METADATA_KEY = 'peft_compile.adapter';

const dtype = z.custom<DType>((value) => typeof value === 'string' && Object.hasOwn(DTYPE_CODES, value), {
  message: 'not an element type',
});

const adapterParam = z.object({
  /** Name in adapter files, unique per adapter. */
  key: z.string().min(1),
  /** Name of the initializer (or graph input) in the adapted model. */
  name: z.string().min(1),
  shape: z.array(z.int().min(0)),
  dtype,
  trainable: z.boolean(),
  /** Parameter group: learning-rate factors and decay are set per group. */
  group: z.string().default('default'),
  /** Factor of the method's own on the learning rate. */
  lrScale: z.number().default(1),
  /** False for biases, norms and gates that weight decay should leave alone. */
  weightDecay: z.boolean().default(true),
});

const adapterEntry = z.object({
  method: z.string(),
  config: z.record(z.string(), z.json()),
  /** The method has a say while training (a penalty, a procedure): whoever trains needs the method itself. */
  trains: z.boolean().optional(),
  /** Which adapter the entry belongs to, where several train together (`passes/adapters-together.ts`). */
  adapter: z.string().optional(),
});

/** A parameter of the simpler method, with the formula of its values. */
const collapsedParam = adapterParam.extend({
  /** Index into the record's `formulas`. */
  formula: z.int().min(0),
  /** What feeds the formula: parameters by key, tensors of the base by name. */
  inputs: z.record(z.string(), z.union([z.object({ param: z.string() }), z.object({ base: z.string() })])),
});

/** What remains of a site of training-only structure when the adapter is saved: a site of a simpler method. */
const adapterCollapse = z.object({
  method: z.string(),
  config: z.record(z.string(), z.json()),
  params: z.record(z.string(), collapsedParam),
});

const adapterSite = z.object({
  /** Index of the entry whose method is at the site. */
  entry: z.int().min(0),
  path: z.string(),
  kind: z.string(),
  /** The method's configuration at this site, rank and alpha patterns applied. */
  config: z.record(z.string(), z.json()),
  /** Sizes of the window, where the module is a convolution: other tools' tensors have axes for them. */
  window: z.array(z.int().min(1)).optional(),
  /** Which of several matrices of one tensor the module is: an expert. */
  slice: z.object({ index: z.int().min(0), count: z.int().min(1) }).optional(),
  params: z.record(z.string(), adapterParam),
  collapse: adapterCollapse.optional(),
});

export const adapterRecordSchema = z.looseObject({
  version: z.literal(2),
  /** The methods, in the order in which they stack where they meet. */
  entries: z.array(adapterEntry).min(1),
  seed: z.number(),
  /** Digest of the base model's weights, where whoever inserted took it. */
  base: z.string().optional(),
  /** By entry, then in model order. */
  sites: z.array(adapterSite),
  /** Models of opset 18 in the textual syntax, of which sites collapse; see `passes/insert/collapse.ts`. */
  formulas: z.array(z.string()).optional(),
});

export type AdapterRecord = z.infer<typeof adapterRecordSchema>;
export type AdapterEntry = z.infer<typeof adapterEntry>;
export type AdapterSite = z.infer<typeof adapterSite>;
export type AdapterParam = z.infer<typeof adapterParam>;
export type AdapterCollapse = z.infer<typeof adapterCollapse>;
export type CollapsedParam = z.infer<typeof collapsedParam>;

/** True when `insert` left a record in this model. */
export function hasAdapterRecord(model: Model): boolean {
  return model.metadata.has(ADAPTER_METADATA_KEY);
}

/** The adapter of a model. Throws E_NO_MATCH where there is none and E_INVALID_DATA where it does not parse. */
export function readAdapterRecord(model: Model): AdapterRecord {
  const where = model.path;
  const text =
    model.metadata.get(ADAPTER_METADATA_KEY) ??
    fail('E_NO_MATCH', {
      message: 'The model holds no adapter',
      ...(where === undefined ? {} : { where }),
      remedy: 'Insert one first: peft-compile insert',
    });
  return parseAdapterRecord(text, where ?? 'the model metadata');
}

/** Parses a record written by `writeAdapterRecord` or stored in an adapter file. Throws E_INVALID_DATA. */
export function parseAdapterRecord(text: string, where: string): AdapterRecord {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    parsed = cause;
  }
  const result = adapterRecordSchema.safeParse(parsed);
  if (result.success) return result.data;
  return fail('E_INVALID_DATA', {
    message: `The adapter record is malformed: ${describeIssues(result.error)}`,
    where,
    remedy: 'Insert or train the adapter again',
  });
}

export function writeAdapterRecord(model: Model, record: AdapterRecord): void {
  model.metadata.set(ADAPTER_METADATA_KEY, JSON.stringify(adapterRecordSchema.parse(record)));
}

/** Trainable parameters in record order, each once even when several sites share it. */
export function trainableParams(record: AdapterRecord): AdapterParam[] {
  const byName = new Map<string, AdapterParam>();
  for (const site of record.sites)
    for (const param of Object.values(site.params))
      if (param.trainable && !byName.has(param.name)) byName.set(param.name, param);
  return [...byName.values()];
}

/** Every parameter once, in record order. */
export function allParams(record: AdapterRecord): AdapterParam[] {
  const byKey = new Map<string, AdapterParam>();
  for (const site of record.sites)
    for (const param of Object.values(site.params)) if (!byKey.has(param.key)) byKey.set(param.key, param);
  return [...byKey.values()];
}

/** Whether a method acts while training: whoever trains resolves it. Others are mere formulas by then. */
export function trainingMethod({ trains }: AdapterEntry): boolean {
  return trains === true;
}

/** Ids of the methods, each once: `lora`, `prefix + parallel`. */
export function methodsOf({ entries }: AdapterRecord): string {
  return [...new Set(entries.map(({ method }) => method))].join(' + ');
}

/** A configuration as the record holds it. */
export function jsonOf(config: Readonly<Record<string, unknown>>): AdapterSite['config'] {
  return JSON.parse(JSON.stringify(config)) as AdapterSite['config'];
}
