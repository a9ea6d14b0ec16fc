/** What a config file may say, as a schema, and the JSON schema that editors check it with. */
import { z } from 'zod';
import { LOSSES } from '../../passes/losses/index.js';
import { type Method, siteKindsOf } from '../../passes/methods/contract/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import { OPTIMIZERS } from '../../passes/optimizers/index.js';
import type { Pass } from '../../passes/pass.js';
import type { Preset } from '../../passes/presets/preset.js';
import { PRESETS } from '../../passes/presets/registry.js';
import { targetingSchema } from '../../passes/sites/targeting.js';
import { SCHEDULES } from '../../runtime/train/schedule.js';

const settings = z.record(z.string(), z.unknown());
const count = z.int().min(1);

/** Where an adapter goes: as `Targeting`, but every entry is optional. */
const where = targetingSchema.omit({ modulesToSave: true }).partial();

function adapterOf<M extends z.ZodType>(method: M) {
  return z.strictObject({
    method: method.describe('Method or preset; see peft-compile methods'),
    ...where.shape,
    config: settings.optional().describe('Settings of the method'),
  });
}

const train = z
  .strictObject({
    loss: z
      .enum([...LOSSES.keys()])
      .optional()
      .describe('What is minimised'),
    lossConfig: settings.optional().describe('Settings of the loss'),
    optimizer: z
      .enum([...OPTIMIZERS.keys()])
      .optional()
      .describe('Update rule'),
    optimizerConfig: settings.optional().describe('Settings of the optimizer'),
    learningRate: z.number().positive().optional().describe('Peak learning rate'),
    schedule: z.enum(SCHEDULES).optional().describe('Course of the learning rate'),
    warmup: z.int().min(0).optional().describe('Steps of linear warm-up'),
    weightDecay: z.number().min(0).optional().describe('Decoupled weight decay'),
    clip: z.number().positive().optional().describe('Clip the gradient to this global norm'),
    accumulation: count.optional().describe('Micro-batches per optimizer step'),
    dropout: z.number().min(0).lt(1).optional().describe('Override the dropout of the adapters'),
    precision: z
      .enum(['float16', 'bfloat16'])
      .optional()
      .describe('Mixed precision: frozen weights and products in half precision'),
    recompute: z
      .union([z.boolean(), count])
      .optional()
      .describe('Compute activations again instead of keeping them; a number: in so many groups at most'),
    epochs: z.number().positive().optional().describe('Passes over the data'),
    steps: count.optional().describe('Optimizer steps at most'),
    batchSize: count.optional().describe('Examples per optimizer step'),
    microBatch: count.optional().describe('Examples per forward and backward pass'),
    validation: z.number().gt(0).lt(1).optional().describe('Hold out this share of the data'),
    evalData: z.string().optional().describe('Data to evaluate on; relative to this file'),
    evalEvery: count.optional().describe('Evaluate every so many steps'),
    patience: count.optional().describe('Stop after so many evaluations without improvement'),
    checkpointEvery: count.optional().describe('Checkpoint every so many steps'),
    tokenizer: z.string().optional().describe('tokenizer.json, for texts; relative to this file'),
    maxLength: count.optional().describe('Longest token sequence; block length of plain text'),
    threads: count.optional().describe('Threads of ONNX Runtime'),
    lowMemory: z.boolean().optional().describe('Use the weights as they lie in the file'),
  })
  .refine(({ microBatch, accumulation }) => microBatch === undefined || accumulation === undefined, {
    message: 'microBatch and accumulation exclude each other',
  });

const declarative = {
  $schema: z.string().optional().describe('The JSON schema of this file, for editors'),
  seed: z.int().min(0).optional().describe('Seed of initial values, order of the data and dropout'),
  modulesToSave: z
    .array(z.string().min(1))
    .optional()
    .describe('Modules trained in full beside the adapters, such as a new classifier'),
  train: train.optional().describe('Training; options of the command line win'),
};

/** A file of data: JSON or YAML. */
export const dataFileSchema = z.strictObject({
  ...declarative,
  adapters: z
    .array(adapterOf(z.string().min(1)))
    .min(1, 'an empty composition: name a method')
    .optional()
    .describe('The composition: methods in the order in which they stack where they meet'),
});

const method = z.custom<Method>(
  (value) => isObjectWith(value, 'id', 'sites'),
  'expected a method of defineMethod',
);
const preset = z.custom<Preset>(
  (value) => isObjectWith(value, 'id', 'entries'),
  'expected a preset of definePreset',
);
const pass = z.custom<Pass>((value) => isObjectWith(value, 'name', 'run'), 'expected a pass of definePass');

/** A module may bring code as well. */
export const moduleSchema = z.strictObject({
  ...declarative,
  adapters: z
    .array(adapterOf(z.union([z.string().min(1), method])))
    .min(1, 'an empty composition: name a method')
    .optional(),
  methods: z.array(method).optional(),
  presets: z.array(preset).optional(),
  passes: z.array(pass).optional(),
});

export type ConfigFile = z.input<typeof moduleSchema>;
export type TrainConfig = z.output<typeof train>;

function isObjectWith(value: unknown, ...keys: string[]): boolean {
  return typeof value === 'object' && value !== null && keys.every((key) => key in value);
}

type JsonSchema = Record<string, unknown>;

/** JSON schema of config files, with the settings of every shipped method and preset under its name. */
export function configJsonSchema(): JsonSchema {
  const file = jsonOf(dataFileSchema) as { properties: Record<string, JsonSchema> };
  const adapters = file.properties.adapters as JsonSchema;
  const adapter = adapters.items as { properties: Record<string, JsonSchema> };
  const methods = METHODS.filter(({ internal }) => internal === undefined);
  const named = [
    ...methods.map((entry) => ({ ...entry, note: `adapts ${siteKindsOf(entry).join(', ')}` })),
    ...PRESETS.map((entry) => ({ ...entry, note: 'a preset' })),
  ];
  const byMethod = named.map(({ id, config }) => ({
    if: { properties: { method: { const: id } }, required: ['method'] },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    then: { properties: { config: withoutDialect(jsonOf(config)) } },
  }));
  return {
    ...file,
    title: 'peft-compile.config',
    properties: {
      ...file.properties,
      adapters: {
        ...adapters,
        items: {
          ...adapter,
          properties: {
            ...adapter.properties,
            method: {
              description: adapter.properties.method?.description,
              oneOf: named.map(({ id, summary, note }) => ({
                const: id,
                description: `${summary} (${note})`,
              })),
            },
          },
          allOf: byMethod,
        },
      },
    },
  };
}

/** JSON schema of what a user writes. */
export function jsonOf(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
}

function withoutDialect({ $schema: _dialect, ...schema }: JsonSchema): JsonSchema {
  return schema;
}
