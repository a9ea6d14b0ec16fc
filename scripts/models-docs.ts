/**
 * The text of `docs/models.md`: what every fixture model can do, from the rows that its tests keep
 * (`docs/measured/models/*.json`). `npx vitest run test/models-docs.test.ts -u` rewrites the file.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelRow } from '../test/models/rows.js';

const HEADER = `# Models

What happens to models of many families, whoever exported them. Every row is a file under \`fixtures/\` that goes through
one harness (\`test/models\`), which knows no model: its linears, tables and norms are found, LoRA and IA³ are inserted
with random parameters and folded, a bottleneck adapter is put into its blocks, and a LoRA on its linears trains. This
page is generated from what those tests measured; a bound is the power of ten that the error stays below.

- **Weights**: linears, tables and norms under the exact path that torch gives them, of those that torch has. In graphs
  that torch did not write there is nothing to compare with, and the number is what was found.
- **Sites**: a attentions, b residual blocks, p readers of positions, v a place for virtual tokens. Attention as one
  operator (opset 23, ONNX Runtime's fused ones) is no site; insertion takes it apart for a method that acts inside.
- **LoRA**, **IA³**: largest difference of folded and unfolded outputs over their scale; the structure proof holds.
- **Blocks**, **Prefix**: \`pfeiffer\` at every residual block and \`prefix\` at every attention change the output. Neither
  folds.
- **Gradient**: largest error of any gradient of the LoRA over its scale, against torch in float64, or (≈) against finite
  differences along the gradient; a few optimizer steps lower the loss.

A number after a model points to what it lacks.
`;

const TITLES: Readonly<Record<string, string>> = {
  zoo: 'Families of models, by both of torch’s exporters',
  models: 'BERT, DistilBERT, RoBERTa, GPT-2 and Llama in every form of export',
  fused: 'After ONNX Runtime’s optimizer and builders',
  decoders: 'Decoders with a cache, branches, and Paddle',
  quantised: 'Quantised weights',
};

/** The whole page. */
export function modelsDocs(root: string): string {
  const folder = join(root, 'docs/measured/models');
  const rows = (existsSync(folder) ? readdirSync(folder).sort() : [])
    .filter((file) => file.endsWith('.json'))
    .flatMap((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as ModelRow[]);
  const sections = Object.entries(TITLES).flatMap(([name, title]) => {
    const own = rows.filter((row) => row.folder === name).sort((a, b) => (a.name < b.name ? -1 : 1));
    return own.length === 0 ? [] : [`## ${title}\n\n${section(own)}`];
  });
  return `${[HEADER.trim(), ...sections].join('\n\n')}\n`;
}

function section(rows: readonly ModelRow[]): string {
  const notes: string[] = [];
  const table = rows.map((row) => {
    const marks = row.gaps.map((gap) => {
      const at = notes.indexOf(gap);
      return at >= 0 ? at + 1 : notes.push(gap);
    });
    const name = `\`${row.name}\`${marks.length === 0 ? '' : ` ${marks.map((n) => `[${n}]`).join('')}`}`;
    return [
      name,
      row.exporter,
      row.opset,
      row.dtype,
      row.exact === undefined ? row.found : row.exact.join('/'),
      sites(row),
      error(row.lora),
      error(row.second),
      row.blocks === true ? 'yes' : '–',
      row.prefixes === true ? 'yes' : '–',
      gradient(row),
    ];
  });
  const head = [
    'Model',
    'Exporter',
    'Opset',
    'Dtype',
    'Weights',
    'Sites',
    'LoRA',
    'IA³',
    'Blocks',
    'Prefix',
    'Gradient',
  ];
  const lines = [head, head.map(() => '---'), ...table].map((cells) => `| ${cells.join(' | ')} |`);
  const list = notes.map((note, i) => `${i + 1}. ${note}`);
  return [lines.join('\n'), ...(list.length === 0 ? [] : [list.join('\n')])].join('\n\n');
}

const LETTERS = { attention: 'a', sublayer: 'b', position: 'p', prompt: 'v' } as const;

function sites({ kinds }: ModelRow): string {
  const found = Object.entries(LETTERS).flatMap(([kind, letter]) => {
    const count = kinds[kind as keyof typeof LETTERS];
    return count === undefined ? [] : [`${count}${letter}`];
  });
  return found.length === 0 ? '–' : found.join(' ');
}

function error(value: number | string | undefined): string {
  return typeof value === 'number' ? bound(value) : 'no';
}

function bound(value: number): string {
  return `< 1e${Math.round(Math.log10(value))}`;
}

function gradient({ gradient: value, against }: ModelRow): string {
  const text = error(value);
  return typeof value === 'number' && against === 'finite differences' ? `≈ ${text}` : text;
}
