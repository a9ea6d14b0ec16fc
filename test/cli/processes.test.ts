/** The command as a process: kills and interrupts at any moment, full disks, pipes, colours. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixturePath } from '../helpers/fixtures.js';
import { cli, countingRecords, start, temporaryFolder, writeLines } from './support.js';

const folder = temporaryFolder();
const at = folder.path;
afterAll(() => folder.remove());

const bert = fixturePath('models', 'bert.dynamo.dynamic.onnx');
const model = fixturePath('quickstart', 'model.onnx');
const STEPS = 60;

beforeAll(async () => {
  await cli('insert', bert, '--rank', '2', '--dropout', '0.1', '-o', at('bert.onnx'));
  writeLines(at('data.jsonl'), countingRecords(40, 'class'));
  await cli('insert', model, '--rank', '2', '-o', at('lm.onnx'));
  const text = [
    '-d',
    fixturePath('quickstart', 'train.txt'),
    '--tokenizer',
    fixturePath('quickstart', 'tokenizer.json'),
  ];
  const trained = await cli(
    'train',
    at('lm.onnx'),
    '--loss',
    'causal-lm',
    ...text,
    '--steps',
    '2',
    '-o',
    at('lm'),
  );
  expect(trained.status).toBe(0);
});

const training = (out: string, ...more: string[]) => [
  ...['train', at('bert.onnx'), '--loss', 'classification', '-d', at('data.jsonl'), '--steps', `${STEPS}`],
  ...['--checkpoint-every', '7', '--threads', '1', '-o', at(out), ...more],
];

const logOf = (out: string): string[] => {
  const path = at(out, 'log.jsonl');
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : [];
};

const steps = (out: string) => logOf(out).map((line) => JSON.parse(line) as { step: number; loss: number });

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe('training', () => {
  let whole: string[];
  beforeAll(async () => {
    expect((await cli(...training('whole'))).status).toBe(0);
    whole = logOf('whole');
    expect(steps('whole')).toHaveLength(STEPS);
  });

  it.each([
    { signal: 'SIGKILL', after: 20, status: null },
    { signal: 'SIGINT', after: 10, status: 130 },
    { signal: 'SIGTERM', after: 10, status: 130 },
  ] as const)(
    'ended by $signal continues to the identical losses and adapter',
    async ({ signal, after, status }) => {
      const out = `run-${signal}`;
      const { child, done } = start(training(out));
      while (steps(out).length < after && child.exitCode === null) await sleep(2);
      child.kill(signal);
      const stopped = await done;
      expect(stopped.status).toBe(status);
      if (status !== null) expect(stopped.stdout).toContain('--resume');
      const reached = steps(out).length;
      expect(reached).toBeLessThan(STEPS);
      expect(existsSync(at(out, 'adapter.safetensors'))).toBe(false);

      const resumed = await start(training(out, '--resume')).done;
      expect(resumed.stderr).toMatch(/continuing after step [1-9]/);
      expect(resumed.status).toBe(0);
      expect(logOf(out)).toEqual(whole);
      expect(digest(at(out, 'adapter.safetensors'))).toBe(digest(at('whole', 'adapter.safetensors')));
    },
  );
});

describe('folding', () => {
  const folding = (out: string) => ['fold', model, '-a', at('lm', 'adapter.safetensors'), '-o', out];
  const begun = (path: string) => existsSync(path) && readdirSync(path).length > 0;

  it.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)(
    'ended by %s leaves the whole model or none',
    async (signal) => {
      expect((await cli(...folding(at(`reference-${signal}.onnx`)))).status).toBe(0);
      const reference = digest(at(`reference-${signal}.onnx`));
      for (let trial = 0; trial < 4; trial++) {
        const target = at(`${signal}-${trial}`);
        mkdirSync(target);
        const { child, done } = start(folding(at(`${signal}-${trial}`, 'merged.onnx')));
        // The first file that appears is the unfinished one; each trial waits a little longer after it.
        while (!begun(target) && child.exitCode === null) await sleep(1);
        await sleep(trial * 7);
        child.kill(signal);
        const { status } = await done;
        const left = readdirSync(target).filter((name) => signal !== 'SIGKILL' || !name.startsWith('.'));
        expect(left.length === 0 || (left.length === 1 && left[0] === 'merged.onnx')).toBe(true);
        if (left.length === 1) expect(digest(at(`${signal}-${trial}`, 'merged.onnx'))).toBe(reference);
        else expect(status).toBe(signal === 'SIGKILL' ? null : 130);
      }
    },
  );

  it.skipIf(process.platform === 'win32')('onto a disk that is full says so and leaves nothing', async () => {
    mkdirSync(at('full'));
    // A limit on the size of files: writes fail like those to a full disk. 1 MiB; the model has 3.5 MB.
    const shell = "trap '' XFSZ; ulimit -f 1024";
    for (const args of [
      folding(at('full', 'merged.onnx')),
      ['insert', model, '-o', at('full', 'adapted.onnx')],
    ]) {
      const { status, stderr } = await start(args, { shell }).done;
      expect(stderr).toMatch(/E_IO.*(too large|space|EFBIG|limit)/);
      expect(stderr).toContain(at('full'));
      expect(status).toBe(3);
      expect(readdirSync(at('full'))).toEqual([]);
    }
  });
});

describe('output', () => {
  it('keeps colours out of pipes and honours NO_COLOR', async () => {
    const piped = await start(['inspect', bert]).done;
    expect(piped.stdout).not.toContain('\x1b[');
    const onCi = await start(['inspect', bert], { env: { CI: 'true' } }).done;
    expect(onCi.stdout).toBe(piped.stdout);
    const forced = await start(['inspect', bert], { env: { FORCE_COLOR: '1' } }).done;
    expect(forced.stdout).toContain('\x1b[');
    const refused = await start(['inspect', bert], { env: { FORCE_COLOR: '1', NO_COLOR: '1' } }).done;
    expect(refused.stdout).not.toContain('\x1b[');
  });

  it('may be cut off by its reader', async () => {
    const { child, done } = start(['print', model]);
    child.stdout?.once('data', () => child.stdout?.destroy());
    const { status, stderr } = await done;
    expect([status, stderr]).toEqual([0, '']);
  });

  it('may be cut off before the verb has written it all', async () => {
    const { status, stderr } = await start(['methods', '--json'], {
      shell: 'exec > >(head -c 100 > /dev/null); sleep 0.1',
    }).done;
    expect([status, stderr]).toEqual([0, '']);
  });

  it('goes to stdout as data and to stderr as progress', async () => {
    const { stdout, stderr } = await start(training('streams', '--json', '--steps', '3')).done;
    expect(JSON.parse(stdout)).toMatchObject({ schemaVersion: 1, reason: 'finished' });
    expect(stderr).toBe('');
  });
});
