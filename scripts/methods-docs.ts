/**
 * The text of `docs/methods.md`, made from the method objects: what each is, its formulas as the compiler prints them,
 * its tensors and its settings. `npx vitest run test/methods-docs.test.ts -u` rewrites the file.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { z } from 'zod';
import { planFold } from '../passes/fold/plan.js';
import { applyInsert } from '../passes/insert/insert.js';
import { planInsert, planModules } from '../passes/insert/plan.js';
import { configure } from '../passes/methods/contract/configurable.js';
import { isDerived } from '../passes/methods/contract/derived.js';
import { type Method, type ParamSpec, rulesFor, siteKindsOf } from '../passes/methods/contract/method.js';
import { METHODS } from '../passes/methods/registry.js';
import { PRESETS } from '../passes/presets/registry.js';
import type { SiteKind } from '../passes/sites/site.js';
import type { SiteDims } from '../passes/sites/views.js';
import { formatTable, type Table } from '../runtime/bench/table.js';
import { PeftCompileError } from '../src/errors.js';
import { initTensor, zeros } from '../src/initializer.js';
import type { Model } from '../src/model.js';
import type { Tensor } from '../src/tensor.js';
import { parseModel, printModel } from '../src/text/index.js';

/** Sizes that occur nowhere else, so that they can be told from settings and printed by name. */
const SIZES = { in: 1009, out: 1013, vocab: 1019, dim: 1021, heads: 53, kvHeads: 59, headDim: 61 } as const;

const common = { path: 'layer', dtype: 'float32' } as const;

/** A site of every kind, as `params` of a method sees it. */
const DIMS: SiteDims = {
  linear: { ...common, inDim: SIZES.in, outDim: SIZES.out, bias: true, role: undefined },
  embedding: { ...common, vocab: SIZES.vocab, dim: SIZES.dim },
  norm: { ...common, dim: SIZES.dim, bias: true },
  sublayer: { ...common, role: 'feed-forward', dim: SIZES.dim, postNorm: true },
  attention: {
    ...common,
    heads: SIZES.heads,
    keyValueHeads: SIZES.kvHeads,
    headDim: SIZES.headDim,
    cross: false,
    hiddenDim: SIZES.dim,
  },
  position: common,
  prompt: { ...common, vocab: SIZES.vocab, dim: SIZES.dim },
};

/** A model of one site, for the kinds whose formulas act on weights. */
const MODELS: Readonly<Partial<Record<SiteKind, string>>> = {
  linear: `<ir_version: 10, opset_import: ["" : 20]>
    base (float[batch, sequence, 1009] x) => (float[batch, sequence, 1013] y)
    <float[1009, 1013] "layer.weight" = ["location": "not-in-text", "length": "4088468"],
     float[1013] "layer.bias" = ["location": "not-in-text", "length": "4052"]>
    { product = MatMul (x, "layer.weight") y = Add (product, "layer.bias") }`,
  embedding: `<ir_version: 10, opset_import: ["" : 20]>
    base (int64[batch, sequence] ids) => (float[batch, sequence, 1021] y)
    <float[1019, 1021] "layer.weight" = ["location": "not-in-text", "length": "4161596"]> { y = Gather ("layer.weight", ids) }`,
  norm: `<ir_version: 10, opset_import: ["" : 20]>
    base (float[batch, sequence, 1021] x) => (float[batch, sequence, 1021] y)
    <float[1021] "layer.weight" = ["location": "not-in-text", "length": "4084"],
     float[1021] "layer.bias" = ["location": "not-in-text", "length": "4084"]>
    { y = LayerNormalization <axis = -1> (x, "layer.weight", "layer.bias") }`,
};

/** Longest formula that is printed; the comment of the method's file says what longer ones compute. */
const LONGEST = 12;

const HEADER = `# Methods

Every method is one file in \`passes/methods/\`, every preset (several methods that belong together) one in
\`passes/presets/\`, and this page is generated from those files. A method declares its settings, the tensors it brings to
a site, and two formulas: the adapted computation, and what the stored weights become when the adapter is folded. Short
formulas are shown as the compiler prints them, from a model of one site with default settings. Add a method of your own
as \`examples/own-method.ts\` does.
`;

/** The whole page. */
export function methodsDocs(root: string, methods: readonly Method[] = METHODS): string {
  const row = (id: string, summary: string, paper: Method['paper']) =>
    `| [\`${id}\`](#${id}) | ${summary} | [${paper.arxiv}](${urlOf(paper)}) |`;
  const table = [
    '| Method | What it is | Paper |',
    '|---|---|---|',
    ...methods.map(({ id, summary, paper }) => row(id, summary, paper)),
    ...PRESETS.map(({ id, summary, paper }) => row(id, `${summary} (preset)`, paper)),
  ].join('\n');
  const chapters = methods.map((method) => chapter(method, join(root, 'passes/methods', `${method.id}.ts`)));
  const presets = PRESETS.map((preset) =>
    [
      `## ${preset.id}\n`,
      `Preset. ${preset.summary}. ${preset.paper.title}, [arXiv ${preset.paper.arxiv}](${urlOf(preset.paper)}).\n`,
      `### Settings\n`,
      `${settings(preset)}\n`,
    ].join('\n'),
  );
  return [HEADER, table, measured(root), ...chapters, ...presets].join('\n\n').replaceAll(/\n{3,}/g, '\n\n');
}

/** Tables of `npm run bench -- --suite methods --rounds 9 --runs 2 --json docs/measured/methods.json`, where it was run. */
function measured(root: string): string {
  const file = join(root, 'docs/measured/methods.json');
  if (!existsSync(file)) return '';
  const { suites } = z
    .object({ suites: z.object({ methods: z.object({ tables: z.array(z.unknown()) }) }) })
    .parse(JSON.parse(readFileSync(file, 'utf8')));
  const rounded = (value: number) => (Number.isInteger(value) ? String(value) : value.toFixed(2));
  const text = (suites.methods.tables as Table[])
    .map((table) => ({ ...table, columns: table.columns.map((column) => ({ ...column, format: rounded })) }))
    .map(formatTable)
    .join('\n');
  return `## Measured\n\n\`npm run bench -- --suite methods --rounds 9 --runs 2 --json docs/measured/methods.json\`\n\n${text}`;
}

function chapter(method: Method, file: string): string {
  const sections = siteKindsOf(method).map((kind) => section(method, kind));
  return [
    `## ${method.id}\n`,
    `${method.summary}. ${method.paper.title}, [arXiv ${method.paper.arxiv}](${urlOf(method.paper)}).\n`,
    `${docOf(file)}\n`,
    `${traits(method)}\n`,
    `### Settings\n`,
    `${settings(method)}\n`,
    ...sections,
  ].join('\n');
}

/** What holds for the method wherever it stands. */
function traits(method: Method): string {
  const { startsAsBase, defaultTargets, learningRate } = method;
  const folds = siteKindsOf(method).map((kind) => {
    const { fold } = rulesFor(method, kind, 'layer');
    return `at ${kind} sites ${typeof fold === 'function' ? 'yes' : `no: ${fold.impossible}`}`;
  });
  return [
    `- Folds ${folds.join('; ')}.`,
    `- Default targets: ${[defaultTargets]
      .flat()
      .map((target) => `\`${target}\``)
      .join(', ')}. Learning rate to try first: ${learningRate}.`,
    `- Before training the model computes ${startsAsBase ? 'what the base computes' : 'something else than the base'}.`,
  ].join('\n');
}

function urlOf({ arxiv }: Method['paper']): string {
  return `https://arxiv.org/abs/${arxiv}`;
}

/** The comment above the default export of a method's file. */
function docOf(file: string): string {
  const text = readFileSync(file, 'utf8');
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const method = source.statements.find((statement) => ts.isExportAssignment(statement));
  const comment = method === undefined ? undefined : ts.getJSDocCommentsAndTags(method).at(-1)?.comment;
  const words = ts.getTextOfJSDocComment(comment);
  if (words === undefined) throw new Error(`${file} has no comment above its default export`);
  return words;
}

function settings(method: { readonly config: Method['config'] }): string {
  const { properties = {} } = z.toJSONSchema(method.config, { io: 'input' });
  const rows = Object.entries(properties).map(([name, schema]) => {
    const { type, description, ...rest } = schema as {
      type?: string;
      description?: string;
      default?: unknown;
    };
    const value = 'default' in rest ? `\`${JSON.stringify(rest.default)}\`` : '';
    return `| \`${name}\` | ${type ?? ''} | ${value} | ${description ?? ''} |`;
  });
  return ['| Setting | Type | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n');
}

/** Tensors and, where they are short, formulas of a method at one kind of site. */
function section(method: Method, kind: SiteKind): string {
  const parts = [`### At ${kind} sites\n`, `${tensors(method, kind)}\n`];
  const formulas = printed(method, kind);
  return [...parts, ...formulas.map((text) => `${text}\n`)].join('\n');
}

/** The adapted and the folded formula of a model of one site. */
function printed(method: Method, kind: SiteKind): string[] {
  const text = MODELS[kind];
  if (text === undefined || method.survey !== undefined) return [];
  const base = parseModel(text);
  const adapted = parseModel(text);
  const before = adapted.graph.nodeCount;
  const entry = { method, targeting: { targets: ['layer'] } };
  let plan: ReturnType<typeof planInsert>;
  try {
    plan = planInsert(adapted, [entry]);
  } catch (error) {
    // Some methods refuse these sizes, or this kind of site with their default settings.
    if (error instanceof PeftCompileError) return [];
    throw error;
  }
  const values = new Map<string, Tensor>();
  for (const { params } of planModules(plan))
    for (const { key, spec, dtype } of params)
      if (isDerived(spec.init)) values.set(key, initTensor(zeros, dtype, spec.shape, 0, key));
  const { record } = applyInsert(adapted, plan, values, {});
  const [task] = planFold(base, record, { methods: [method] }).tasks;
  const found: string[] = [];
  if (adapted.graph.nodeCount - before <= LONGEST) found.push(`Adapted:\n\n${code(adapted)}`);
  if (task !== undefined && task.formula.graph.nodeCount <= LONGEST)
    found.push(`Folded, \`w\` being the stored tensor:\n\n${code(task.formula)}`);
  return found;
}

function tensors(method: Method, kind: SiteKind): string {
  const config = configure(method, {});
  const dims = DIMS[kind];
  let specs: [string, ParamSpec][];
  try {
    specs = [
      ...Object.entries(rulesFor(method, kind, 'layer').params(dims, config)),
      ...Object.entries(method.shared?.([{ ...dims, kind } as never], config) ?? {}).map(
        ([name, spec]): [string, ParamSpec] => [`${name} (one for all sites)`, spec],
      ),
    ];
  } catch (error) {
    if (error instanceof PeftCompileError) return `Sizes depend on the module: ${error.message}.`;
    throw error;
  }
  if (specs.length === 0) return 'No tensors.';
  const rows = specs.map(([name, { shape, trainable = true, group = 'default', weightDecay = true }]) => {
    const sizes = shape.map((size) => sizeName(size, config)).join(', ');
    return `| ${name} | [${sizes}] | ${trainable ? 'yes' : 'no'} | ${group} | ${weightDecay ? 'yes' : 'no'} |`;
  });
  return ['| Tensor | Shape | Trained | Group | Weight decay |', '|---|---|---|---|---|', ...rows].join('\n');
}

/** The name of a size: of the site's, or of the one setting that has this value. */
function sizeName(size: number, config: Readonly<Record<string, unknown>>): string {
  const own = Object.entries(SIZES).find(([, value]) => value === size);
  const set = Object.entries(config).filter(([, value]) => value === size);
  // Where several settings have the value, the first: sizes are declared before factors.
  return own?.[0] ?? set[0]?.[0] ?? String(size);
}

function code(model: Model): string {
  let text = printModel(model, { annotations: false });
  for (const [name, size] of Object.entries(SIZES))
    text = text.replaceAll(new RegExp(`\\b${size}\\b`, 'g'), name);
  // The header says nothing about the formula.
  const body = text.slice(text.indexOf('\n>') < 0 ? 0 : text.indexOf('\n>') + 2).trim();
  const declared = body.replaceAll(/ = \["location"[^\]]*\]/g, '').replace(/^"" /, 'fold ');
  return `\`\`\`\n${declared}\n\`\`\``;
}
