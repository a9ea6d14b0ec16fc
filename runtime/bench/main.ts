/** `npm run bench`: prints tables of measured figures, and writes them as JSON. */
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { fail, PeftCompileError } from '../../src/errors.js';
import { atomicWrite } from '../../src/onnx/index.js';
import type { BertShape } from './models/bert.js';
import { hasPeers, runTask } from './process.js';
import type { BenchContext, Suite, SuiteResult } from './suite.js';
import { SUITES } from './suites/index.js';
import { formatTable } from './table.js';

interface Flags {
  readonly suite: readonly Suite[];
  readonly json?: string;
  readonly python?: string;
  readonly threads: number;
  readonly rounds?: number;
  readonly runs?: number;
  readonly quick?: boolean;
  readonly profile?: boolean;
  readonly work: string;
}

const command = new Command('bench')
  .description('Measures peft-compile and prints tables. Every figure comes from a process of its own.')
  .option('--suite <names>', `comma-separated: ${SUITES.map(({ id }) => id).join(', ')}`, chosen, SUITES)
  .option('--json <file>', 'write all figures as JSON')
  .option('--python <path>', 'Python with torch and peft, to compare with (PEFT_COMPILE_PYTHON)')
  .option('--threads <n>', 'threads on both sides of every comparison', count, 2)
  .option('--rounds <n>', 'processes per figure, in turn with what it is compared with (default: 3)', count)
  .option('--runs <n>', 'measured runs in a process (default: 5)', count)
  .option('--quick', 'tiny models and single runs: shows that it works, figures mean nothing')
  .option('--profile', 'step: also print where the time goes, by operator')
  .option('--work <folder>', 'where models and results are written, and removed again', tmpdir())
  .action(run);
try {
  await command.parseAsync();
} catch (error) {
  if (!(error instanceof PeftCompileError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

async function run(flags: Flags): Promise<void> {
  const { threads, quick = false, profile = false } = flags;
  const { rounds = quick ? 1 : 3, runs = quick ? 1 : 5 } = flags;
  const log = (line: string) => process.stderr.write(`${line}\n`);
  const python = await pythonFor(flags.python ?? process.env.PEFT_COMPILE_PYTHON);
  const folder = await mkdtemp(join(flags.work, 'peft-compile-bench-'));
  process.once('SIGINT', () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  });
  const bert = bertFiles(folder, log);
  const context: BenchContext = { threads, quick, rounds, runs, python, profile, folder, log, bert };
  const results: Record<string, SuiteResult> = {};
  try {
    for (const suite of flags.suite) {
      log(`${suite.id}: ${suite.summary}`);
      const result = await suite.run(context);
      results[suite.id] = result;
      for (const table of result.tables) process.stdout.write(`${formatTable(table)}\n`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  if (flags.json === undefined) return;
  const settings = { threads, rounds, runs, quick, peers: python !== undefined };
  const report = { schemaVersion: 1, machine: machine(), settings, suites: results };
  await atomicWrite(flags.json, { force: true }, (sink) =>
    sink.write(new TextEncoder().encode(`${JSON.stringify(report, null, 2)}\n`)),
  );
}

/** A Python that was named has to work; without a name the rows of peers are left out. */
async function pythonFor(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  if (await hasPeers(path)) return path;
  return fail('E_USAGE', {
    message: 'This Python does not have torch, transformers, peft, onnx and onnxscript',
    where: path,
    remedy: 'Install them there, or leave the peers out.',
  });
}

/** Models are written when the first suite asks for them, and kept for the others. */
function bertFiles(folder: string, log: (line: string) => void): BenchContext['bert'] {
  return async (shape: BertShape, externalData) => {
    const out = join(folder, `bert-${shape.layers}x${shape.hidden}-${externalData}.onnx`);
    if (!existsSync(out)) {
      log(`  writing a BERT of ${shape.layers} layers, width ${shape.hidden}`);
      await runTask('writeBert', { shape, out, externalData });
    }
    return out;
  };
}

function machine() {
  const { platform, arch, versions } = process;
  return {
    platform,
    arch,
    processors: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: versions.node,
  };
}

function chosen(text: string): readonly Suite[] {
  return text.split(',').map((id) => {
    const suite = SUITES.find((candidate) => candidate.id === id.trim());
    if (suite === undefined)
      throw new InvalidArgumentError(`Choose from ${SUITES.map((known) => known.id).join(', ')}.`);
    return suite;
  });
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('Give a whole number from 1.');
  return value;
}
