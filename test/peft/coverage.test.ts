/**
 * What of PEFT is accounted for: every type of the version that the fixtures come from folds, is inserted, or is refused
 * with a reason, and `docs/peft.md` lists what was folded where.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FILE_METHODS } from '../../passes/methods/from-files.js';
import { METHODS } from '../../passes/methods/registry.js';
import { UNREADABLE } from '../../runtime/peft/unreadable.js';
import { repositoryRoot } from '../helpers/fixtures.js';
import { foldExports, type PeftCase, peftCases, peftFolder } from './folders.js';

/** `PeftType` of peft 0.21. */
const TYPES =
  'PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING LORA ADALORA ADAMSS BOFT ADAPTION_PROMPT IA3 BEFT LILY LOHA LOKR OFT POLY LN_TUNING VERA FROD PVERA FOURIERFT GLORA XLORA HRA VBLORA UNILORA CPT MISS RANDLORA ROAD TRAINABLE_TOKENS HIRA SHIRA C3A WAVEFT OSF DELORA GRALORA CARTRIDGE TINYLORA PSOFT PEANUT SHADOW SUPERTUNING DEFT'.split(
    ' ',
  );

const readable = new Set([...METHODS, ...FILE_METHODS].flatMap(({ peft }) => peft?.types ?? []));

it.each(TYPES)('%s is read, with a folder to show it, or refused with a reason', (type) => {
  const folders = peftCases((one) => one.type === type);
  if (readable.has(type)) expect(folders.length).toBeGreaterThan(0);
  else expect(UNREADABLE[type]).toMatch(/;/);
});

it('what is refused is not read', () => {
  expect(Object.keys(UNREADABLE).filter((type) => readable.has(type) || !TYPES.includes(type))).toEqual([]);
});

const ARCHITECTURES = ['llama', 'bert', 'gpt2'] as const;
const [BEGIN, END] = ['<!-- folds: generated -->', '<!-- /folds -->'];

function cellOf(one: PeftCase | undefined): string {
  if (one === undefined) return '';
  const counts = new Map<string, number>();
  for (const { exporter } of foldExports(one)) counts.set(exporter, (counts.get(exporter) ?? 0) + 1);
  const exporters = [...counts].map(([exporter, count]) =>
    count === 1 ? exporter : `${exporter} × ${count}`,
  );
  const { target_modules: targets } = JSON.parse(
    readFileSync(join(peftFolder(one.name), 'adapter_config.json'), 'utf8'),
  ) as { target_modules?: unknown };
  const head = Array.isArray(targets) && targets.join() === 'lm_head' ? ', head' : '';
  return exporters.join(', ') + head;
}

function table(): string {
  const cases = peftCases(({ folds }) => folds);
  const names = [...new Set(cases.map((one) => one.case))];
  const rows = names.map((name) => {
    const own = cases.filter((one) => one.case === name);
    const cells = ARCHITECTURES.map((arch) => cellOf(own.find(({ architecture }) => architecture === arch)));
    return { type: own[0]?.type ?? '', text: `| \`${own[0]?.type}\` | ${name} | ${cells.join(' | ')} |` };
  });
  rows.sort((a, b) => (a.type < b.type ? -1 : a.type > b.type ? 1 : 0));
  return [
    BEGIN,
    '| `peft_type` | Folder | Llama | BERT | GPT-2 |',
    '|---|---|---|---|---|',
    ...rows.map(({ text }) => text),
    END,
  ].join('\n');
}

it('docs/peft.md lists every fold; `npx vitest run test/peft/coverage.test.ts -u` rewrites it', async () => {
  const page = join(repositoryRoot, 'docs', 'peft.md');
  const text = readFileSync(page, 'utf8');
  const [before = '', rest = ''] = text.split(BEGIN);
  const after = rest.split(END)[1] ?? '';
  await expect(`${before}${table()}${after}`).toMatchFileSnapshot(page);
});
