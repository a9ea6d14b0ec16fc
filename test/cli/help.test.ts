/** What a newcomer sees before anything runs: help, versions, suggestions, exit statuses. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildProgram } from '../../src/cli/program.js';
import { fixturePath, repositoryRoot } from '../helpers/fixtures.js';
import { cli, cliJson } from './support.js';

const VERBS = (await buildProgram()).commands.map((command) => command.name());
const model = fixturePath('models', 'bert.ts.dynamic.onnx');

describe('help', () => {
  it('lists every verb, the exit statuses and where to start', async () => {
    const { status, stdout } = await cli('--help');
    expect(status).toBe(0);
    for (const verb of VERBS) expect(stdout).toMatch(new RegExp(`^  ${verb}\\b`, 'm'));
    expect(stdout).toContain('Exit status');
    expect(stdout).toContain('peft-compile insert model.onnx');
  });

  it.each(VERBS)('of %s explains every option and offers --json', async (verb) => {
    const { status, stdout } = await cli(verb, '--help');
    expect(status).toBe(0);
    expect(stdout).toContain(`Usage: peft-compile ${verb}`);
    const command = (await buildProgram()).commands.find((candidate) => candidate.name() === verb);
    for (const option of command?.options ?? []) expect(option.description).not.toBe('');
    if (verb !== 'completion') expect(stdout).toContain('--json');
  });

  it.each(VERBS)('of %s has no long list of options', async (verb) => {
    const command = (await buildProgram()).commands.find((candidate) => candidate.name() === verb);
    const headings = command?.options.map(({ helpGroupHeading }) => helpGroupHeading ?? 'Options:') ?? [];
    const sizes = [...new Set(headings)].map((heading) => headings.filter((one) => one === heading).length);
    // emit has those of training graphs under the targets that they go with.
    expect(Math.max(0, ...sizes)).toBeLessThanOrEqual(verb === 'emit' ? 15 : 12);
  });

  it('gives the version of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as {
      version: string;
    };
    const { status, stdout } = await cli('--version');
    expect([status, stdout.trim()]).toEqual([0, version]);
  });
});

describe('a misspelt word is answered with the right one', () => {
  it.each([
    { args: ['inpect', model], status: 2, answer: 'inspect' },
    { args: ['insert', model, '--tagets', 'query', '-o', 'x'], status: 2, answer: '--targets' },
    { args: ['emit', model, '--loss', 'causal', '-o', 'x'], status: 2, answer: 'causal-lm' },
    { args: ['methods', 'lroa'], status: 4, answer: 'lora' },
    { args: ['insert', model, '-m', 'lroa', '-o', 'x'], status: 4, answer: 'lora' },
    { args: ['insert', model, '-t', 'qury', '-o', 'x'], status: 4, answer: 'query' },
    { args: ['insert', model, '--set', 'rnk=3', '-o', 'x'], status: 2, answer: 'rank' },
    { args: ['insert', model, '-t', 'query', '--exclude', 'valu', '-o', 'x'], status: 4, answer: 'value' },
  ])('$args.0 … $answer', async ({ args, status, answer }) => {
    const outcome = await cli(...args);
    expect(outcome.stderr).toContain(answer);
    expect(outcome.status).toBe(status);
    expect(outcome.stdout).toBe('');
  });
});

describe('wrong values of options', () => {
  it.each([
    { args: ['insert', model, '--rank', '0', '-o', 'x'], says: 'rank' },
    { args: ['insert', model, '--rank', '', '-o', 'x'], says: 'whole number' },
    { args: ['insert', model, '--alpha', 'much', '-o', 'x'], says: 'number' },
    { args: ['insert', model, '--dropout', '2', '-o', 'x'], says: 'dropout' },
    { args: ['insert', model, '--layers', 'first', '-o', 'x'], says: '0-3' },
    { args: ['insert', model, '--regex', '(', '-o', 'x'], says: '(' },
    { args: ['verify', model, model, '--sizes', 'batch'], says: 'batch=2' },
    { args: ['emit', model, '-o', 'x'], says: '--loss' },
    { args: ['fold', model, '-a', 'x'], says: '--out' },
    { args: ['train', model], says: '--data' },
    {
      args: ['train', model, '-d', 'x', '-o', 'x', '--batch-size', '8', '--micro-batch', '3'],
      says: 'divide',
    },
    {
      args: ['train', model, '-d', 'x', '-o', 'x', '--accumulation', '2', '--micro-batch', '3'],
      says: '--accumulation',
    },
  ])('$args', async ({ args, says }) => {
    const outcome = await cli(...args);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toContain(says);
    expect(outcome.stdout).toBe('');
  });
});

describe('for programs', () => {
  it.each([
    ['inspect', model],
    ['methods'],
    ['doctor'],
    ['print', model],
    ['verify', model, model, '--sizes', 'batch=1,sequence=3'],
  ])('%s --json prints one object', async (...args) => {
    const { status, json } = await cliJson(...args);
    expect(status).toBe(0);
    expect(json.schemaVersion).toBe(1);
  });

  it('errors are objects too', async () => {
    const missing = await cliJson('inspect', 'missing.onnx');
    expect(missing.status).toBe(3);
    expect(missing.json.error).toMatchObject({ code: 'E_IO', exitCode: 3, where: 'missing.onnx' });
    const usage = await cliJson('insert', model);
    expect(usage.status).toBe(2);
    expect(usage.json.error).toMatchObject({ code: 'E_USAGE', exitCode: 2 });
  });

  it('--quiet leaves only the exit status', async () => {
    expect(await cli('verify', model, model, '--quiet')).toMatchObject({ status: 0, stdout: '', stderr: '' });
    const other = fixturePath('models', 'gpt2.ts.dynamic.onnx');
    const outcome = await cli('verify', model, other, '--quiet');
    expect(outcome.status).not.toBe(0);
  });
});

describe('completion', () => {
  const complete = (script: string, ...words: string[]) =>
    execFileSync(
      'bash',
      [
        '-c',
        `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _peft_compile; echo "\${COMPREPLY[@]}"`,
        'bash',
      ].concat(words),
      { encoding: 'utf8' },
    ).trim();

  it('completes verbs, options and their values', async () => {
    const { stdout } = await cli('completion', 'bash');
    expect(complete(stdout, 'peft-compile', 'in')).toBe('inspect insert');
    expect(complete(stdout, 'peft-compile', 'train', '--micro')).toBe('--micro-batch');
    expect(complete(stdout, 'peft-compile', 'train', '--loss', 'c')).toBe('causal-lm classification ctc');
    expect(complete(stdout, 'peft-compile', 'completion', 'z')).toBe('zsh');
  });
});
