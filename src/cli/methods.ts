import { Command } from 'commander';
import type { z } from 'zod';
import { type Method, type Paper, siteKindsOf } from '../../passes/methods/contract/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import type { Preset } from '../../passes/presets/preset.js';
import { PRESETS, resolveNamed } from '../../passes/presets/registry.js';
import type { SiteKind } from '../../passes/sites/site.js';
import { countOf } from '../types.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { configJsonSchema, jsonOf } from './config-schema.js';
import { emitText, formatCount, print, printJson } from './output.js';
import { SAMPLE_SITES } from './sample-sites.js';
import { table } from './table.js';

interface MethodsFlags {
  readonly json?: boolean;
  readonly schema?: boolean;
  readonly config?: string | false;
}

export function methodsCommand(): Command {
  const command = new Command('methods')
    .summary('list the methods and presets, and their settings')
    .argument('[id]', 'show the settings and parameters of one method or preset')
    .option('--schema', 'print the JSON schema of config files')
    .option('--json', 'print JSON, with a JSON schema of every method');
  return addConfigOptions(command).action(run);
}

async function run(id: string | undefined, flags: MethodsFlags): Promise<void> {
  if (flags.schema === true) return emitText(JSON.stringify(configJsonSchema(), null, 2));
  const own = await loadUserConfig(flags.config);
  const all = {
    methods: [...own.methods, ...METHODS]
      .filter(({ internal }) => internal === undefined)
      .map(describeMethod),
    presets: [...own.presets, ...PRESETS].map(describePreset),
  };
  if (id === undefined) {
    if (flags.json === true) return printJson(all);
    return printList(all.methods, all.presets);
  }
  const named = resolveNamed(id, own);
  if ('preset' in named) {
    const described = describePreset(named.preset);
    return flags.json === true ? printJson({ methods: [], presets: [described] }) : printPreset(described);
  }
  const described = describeMethod(named.method);
  return flags.json === true ? printJson({ methods: [described] }) : printMethod(described);
}

/** A method at one kind of site. */
interface DescribedSite {
  readonly kind: SiteKind;
  /** Why it does not fold; undefined where it does. */
  readonly impossible?: string;
  /** Tensors at a site of BERT-base's width with default settings; undefined where they depend on the model. */
  readonly params?: readonly DescribedParam[];
}

interface DescribedParam {
  readonly role: string;
  readonly shape: readonly number[];
  readonly trainable: boolean;
  readonly group: string;
  readonly init: string;
}

interface Described {
  readonly id: string;
  readonly summary: string;
  readonly paper: Paper;
  readonly config: Record<string, unknown>;
}

interface DescribedMethod extends Described {
  readonly sites: readonly SiteKind[];
  readonly at: readonly DescribedSite[];
  readonly targets: string | readonly string[];
  readonly startsAsBase: boolean;
}

interface DescribedPreset extends Described {
  readonly methods: readonly {
    readonly method: string;
    readonly config: Readonly<Record<string, unknown>>;
  }[];
}

function describeMethod(method: Method): DescribedMethod {
  const { id, summary, paper, config, defaultTargets, startsAsBase } = method;
  return {
    id,
    summary,
    paper,
    sites: siteKindsOf(method),
    at: siteKindsOf(method).map((kind) => describeSite(method, kind)),
    targets: defaultTargets,
    startsAsBase,
    config: jsonOf(config),
  };
}

function describeSite(method: Method, kind: SiteKind): DescribedSite {
  const fold = method.sites[kind]?.fold;
  const params = sampleParams(method, kind);
  return {
    kind,
    ...(typeof fold === 'function' || fold === undefined ? {} : fold),
    ...(params === undefined ? {} : { params }),
  };
}

/** Undefined where settings are required or come from a look at the weights. */
function sampleParams(method: Method, kind: SiteKind): DescribedParam[] | undefined {
  const config = defaultsOf(method.config);
  if (config === undefined) return undefined;
  const dims = SAMPLE_SITES[kind];
  try {
    const shared = method.shared?.([{ ...dims, kind } as never], config) ?? {};
    const own = method.sites[kind]?.params(dims, config) ?? {};
    return Object.entries({ ...shared, ...own }).map(([role, spec]) => ({
      role,
      shape: spec.shape,
      trainable: spec.trainable ?? true,
      group: spec.group ?? 'default',
      init: spec.init.kind,
    }));
  } catch {
    return undefined;
  }
}

function defaultsOf(schema: z.ZodType<Record<string, unknown>>): Record<string, unknown> | undefined {
  const result = schema.safeParse({});
  return result.success ? result.data : undefined;
}

function describePreset({ id, summary, paper, config, entries }: Preset): DescribedPreset {
  const defaults = defaultsOf(config);
  const parts = defaults === undefined ? [] : entries(defaults);
  return {
    id,
    summary,
    paper,
    methods: parts.map(({ method, config = {} }) => ({
      method: typeof method === 'string' ? method : method.id,
      config,
    })),
    config: jsonOf(config),
  };
}

function folds({ at }: DescribedMethod): string {
  const reasons = new Set(at.flatMap(({ impossible }) => impossible ?? []));
  if (reasons.size === 0) return 'yes';
  return reasons.size === at.length || at.every(({ impossible }) => impossible !== undefined)
    ? 'no'
    : 'in part';
}

function printList(methods: readonly DescribedMethod[], presets: readonly DescribedPreset[]): void {
  print(
    table(
      ['method', 'adapts', 'folds', 'what it is', 'paper'],
      methods.map((method) => [
        method.id,
        method.sites.join(', '),
        folds(method),
        method.summary,
        `arXiv ${method.paper.arxiv}`,
      ]),
    ),
  );
  print();
  print(
    table(
      ['preset', 'methods', 'what it is', 'paper'],
      presets.map(({ id, methods, summary, paper }) => [
        id,
        methods.map(({ method }) => method).join(' + '),
        summary,
        `arXiv ${paper.arxiv}`,
      ]),
    ),
  );
}

function printHead({ id, summary, paper }: Described): void {
  print(`${id}: ${summary}`);
  print(`${paper.title}, arXiv ${paper.arxiv}`);
}

function printMethod(method: DescribedMethod): void {
  printHead(method);
  print(`targets where you name none: ${[method.targets].flat().join(', ')}`);
  if (!method.startsAsBase) print('changes what the model computes from the start');
  print();
  printSettings(method);
  for (const { kind, impossible, params } of method.at) {
    print();
    print(`at ${kind} sites: ${impossible === undefined ? 'folds' : `does not fold: ${impossible}`}`);
    if (params === undefined) print('parameters depend on the model and the settings');
    else if (params.length === 0) print('no parameters of its own');
    else
      print(
        table(
          ['parameter', 'shape at BERT-base', 'elements', 'trained', 'group', 'starts'],
          params.map(({ role, shape, trainable, group, init }) => [
            role,
            `[${shape.join(', ')}]`,
            formatCount(countOf(shape)),
            trainable ? 'yes' : 'no',
            group === 'default' ? '' : group,
            init,
          ]),
          [2],
        ),
      );
  }
}

function printPreset(preset: DescribedPreset): void {
  printHead(preset);
  print();
  print(
    table(
      ['method', 'settings'],
      preset.methods.map(({ method, config }) => [
        method,
        Object.entries(config)
          .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
          .join(' '),
      ]),
    ),
  );
  print();
  printSettings(preset);
}

function printSettings({ config }: Described): void {
  const properties = (config.properties ?? {}) as Record<string, SettingSchema>;
  const rows = Object.entries(properties).map(([name, schema]) => [
    name,
    typeOf(schema),
    JSON.stringify(schema.default) ?? '',
    schema.description ?? '',
  ]);
  print(rows.length === 0 ? 'no settings' : table(['setting', 'type', 'default', 'meaning'], rows));
}

interface SettingSchema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly SettingSchema[];
  readonly default?: unknown;
  readonly description?: string;
}

function typeOf({ type, enum: words, const: only, anyOf }: SettingSchema): string {
  if (words !== undefined) return words.join(' | ');
  if (only !== undefined) return JSON.stringify(only);
  if (anyOf !== undefined) return anyOf.map(typeOf).join(' | ');
  return type ?? '';
}
