/**
 * The text of `docs/methods.md`, made from the method objects: what each is, its formulas as the compiler prints them,
 * its tensors and its settings. `npx vitest run test/methods-docs.test.ts -u` rewrites the file.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { z } from 'zod';
import type { AdapterSite } from '../passes/adapter-record.js';
import { planFold } from '../passes/fold.js';
import { insert } from '../passes/insert.js';
import { type Method, siteKindsOf } from '../passes/methods/method.js';
import { METHODS } from '../passes/methods/registry.js';
import type { SiteKind } from '../passes/sites/site.js';
import type { Model } from '../src/model.js';
import { parseModel, printModel } from '../src/text/index.js';

/** Sizes that occur nowhere else, so that they can be told from settings and printed by name. */
const SIZES: Readonly<Record<string, number>> = { in: 1009, out: 1013, vocab: 1019, dim: 1021 };

/** A model of one site per kind. */
const MODELS: Readonly<Partial<Record<SiteKind, string>>> = {
  linear: `<ir_version: 10, opset_import: ["" : 20]>
    base (float[batch, sequence, 1009] x) => (float[batch, sequence, 1013] y)
    <float[1009, 1013] "layer.weight" = ["location": "not-in-text", "length": "4088468"]> { y = MatMul (x, "layer.weight") }`,
  embedding: `<ir_version: 10, opset_import: ["" : 20]>
    base (int64[batch, sequence] ids) => (float[batch, sequence, 1021] y)
    <float[1019, 1021] "layer.weight" = ["location": "not-in-text", "length": "4161596"]> { y = Gather ("layer.weight", ids) }`,
};

const HEADER = `# Methods

Every method is one file in \`passes/methods/\`, and this page is generated from those files. A method declares its
settings, the tensors it brings to a site, and two formulas: the adapted computation, and what the base weight becomes
when the adapter is folded. The formulas below are printed by the compiler from a model of one site with default
settings. Add one of your own as \`examples/own-method.ts\` does.
`;

/** The whole page. */
export function methodsDocs(root: string, methods: readonly Method[] = METHODS): string {
  const list = methods.map(
    ({ id, summary, paper }) => `| [\`${id}\`](#${id}) | ${summary} | [${paper.arxiv}](${urlOf(paper)}) |`,
  );
  const table = ['| Method | What it is | Paper |', '|---|---|---|', ...list].join('\n');
  const chapters = methods.map((method) => chapter(method, join(root, 'passes/methods', `${method.id}.ts`)));
  return `${HEADER}\n${table}\n\n${chapters.join('\n')}`;
}

function chapter(method: Method, file: string): string {
  const sections = siteKindsOf(method).map((kind) => section(method, kind));
  return [
    `## ${method.id}\n`,
    `${method.summary}. ${method.paper.title}, [arXiv ${method.paper.arxiv}](${urlOf(method.paper)}).\n`,
    `${docOf(file)}\n`,
    `### Settings\n`,
    `${settings(method)}\n`,
    ...sections,
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

function settings(method: Method): string {
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

/** Formulas and tensors of a method at one kind of site. */
function section(method: Method, kind: SiteKind): string {
  const text = MODELS[kind];
  if (text === undefined) return `### At ${kind} sites\n`;
  const base = parseModel(text);
  const adapted = parseModel(text);
  const { record } = insert(adapted, { method, targeting: { targets: ['layer'] } });
  const plan = planFold(base, record, { methods: [method] });
  const [site] = record.sites;
  const [task] = plan.tasks;
  const folded =
    task === undefined
      ? `Does not fold: ${plan.impossible[0]?.reason ?? ''}.`
      : `Folded, \`w\` being the base weight:\n\n${code(task.formula)}`;
  return [
    `### At ${kind} sites\n`,
    `${site === undefined ? '' : tensors(site)}\n`,
    `Adapted:\n\n${code(adapted)}\n`,
    `${folded}\n`,
  ].join('\n');
}

function tensors({ params, config }: AdapterSite): string {
  const rows = Object.entries(params).map(
    ([name, { shape, key, trainable, group, weightDecay }]) =>
      `| ${name} | [${shape.map((size) => sizeName(size, config)).join(', ')}] | \`${key.replace(/^layer\./, '')}\` | ${trainable ? 'yes' : 'no'} | ${group} | ${weightDecay ? 'yes' : 'no'} |`,
  );
  const head = ['| Tensor | Shape | Key | Trained | Group | Weight decay |', '|---|---|---|---|---|---|'];
  return [...head, ...rows].join('\n');
}

/** The name of a size: of the site's, or of the one setting that has this value. */
function sizeName(size: number, config: Readonly<Record<string, unknown>>): string {
  const own = Object.entries(SIZES).find(([, value]) => value === size);
  const set = Object.entries(config).filter(([, value]) => value === size);
  return own?.[0] ?? (set.length === 1 ? set[0]?.[0] : undefined) ?? String(size);
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
