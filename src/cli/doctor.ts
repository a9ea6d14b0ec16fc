/** Checks of the installation: what has to be there before anything else can work. */
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, freemem, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { type ExecutionProvider, type Finding, PROVIDERS, providerOf } from '../../runtime/ep/index.js';
import { probe } from '../../runtime/ep/probe.js';
import { surroundings } from '../../runtime/ep/surroundings.js';
import { createSession } from '../../runtime/session.js';
import { EXIT } from '../errors.js';
import { choice } from './choice.js';
import pc from './colour.js';
import { formatBytes, print, printJson } from './output.js';
import { packageFile } from './package-file.js';

/** Throws, or says what was found. */
interface Check {
  readonly check: string;
  readonly run: () => Promise<string> | string;
  readonly remedy: string;
}

const OLDEST_NODE = [20, 19] as const;

const CHECKS: readonly Check[] = [
  {
    check: 'Node',
    remedy: `Install Node ${OLDEST_NODE.join('.')} or newer`,
    run: () => {
      const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
      if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1]))
        throw new Error(process.version);
      return `${process.version}, ${process.platform} ${process.arch}`;
    },
  },
  {
    check: 'ONNX Runtime',
    remedy: 'Install again with npm ci; the binaries are inside the onnxruntime-node package',
    run: async () => {
      const backends = (await import('onnxruntime-node')).listSupportedBackends();
      const version = (createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string })
        .version;
      const names = backends.filter(({ bundled }) => bundled).map(({ name }) => name);
      return `${version}, bundled providers ${names.join(', ')}`;
    },
  },
  {
    check: 'a model runs',
    remedy: 'Install again; see docs/ for the platforms that onnxruntime-node has binaries for',
    run: async () => {
      const session = await createSession(packageFile('fixtures', 'quickstart', 'model.onnx'), {
        threads: 1,
      });
      const names = session.outputs.map(({ name }) => name).join(', ');
      await session.release();
      return `quickstart model loads, outputs ${names}`;
    },
  },
  {
    check: 'temporary folder',
    remedy: 'Set TMPDIR to a folder that can be written to',
    run: () => {
      const folder = mkdtempSync(join(tmpdir(), 'peft-compile-'));
      try {
        writeFileSync(join(folder, 'probe'), 'x');
      } finally {
        rmSync(folder, { recursive: true });
      }
      return `${tmpdir()}, ${free(tmpdir())} free`;
    },
  },
  {
    check: 'working folder',
    remedy: 'Free some space, or give --out another disk',
    run: () => `${free('.')} free`,
  },
  {
    check: 'machine',
    remedy: '',
    run: () =>
      `${availableParallelism()} cores, ${formatBytes(freemem())} of ${formatBytes(totalmem())} memory free`,
  },
];

export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('check the installation')
    .description(
      'Check the installation: Node, ONNX Runtime, folders and memory; with --ep also a device, its libraries and its driver. Exits with 1 where something fails, and says what to install.',
    )
    .addOption(
      choice('--ep <provider>', 'also check what an execution provider needs, and run a model on it', [
        ...PROVIDERS.keys(),
      ]),
    )
    .option('--json', 'print a JSON report')
    .addHelpText(
      'after',
      `
Examples:
  peft-compile doctor
  peft-compile doctor --ep webgpu`,
    )
    .action(async (flags: { readonly ep?: string; readonly json?: boolean }) => {
      const findings: Finding[] = [];
      for (const { check, run, remedy } of CHECKS)
        try {
          findings.push({ check, ok: true, found: await run() });
        } catch (error) {
          const found = error instanceof Error ? error.message : String(error);
          findings.push({ check, ok: false, found, remedy });
        }
      if (flags.ep !== undefined) findings.push(...(await checkProvider(providerOf(flags.ep))));
      if (findings.some(({ ok }) => !ok)) process.exitCode = EXIT.unexpected;
      if (flags.json === true) return printJson({ ok: findings.every(({ ok }) => ok), findings });
      for (const { check, ok, found, remedy } of findings)
        print(
          `${ok ? pc.green('ok  ') : pc.red('fail')} ${check.padEnd(26)} ${found}${remedy === undefined ? '' : `. ${remedy}`}`,
        );
    });
}

/** What the provider needs; where all of it is there, whether it works. */
async function checkProvider(provider: ExecutionProvider): Promise<Finding[]> {
  const needed = provider.check(surroundings());
  const findings = needed.every(({ ok }) => ok) ? [...needed, ...(await probe(provider))] : needed;
  return findings.map((finding) => ({ ...finding, check: `${provider.id}: ${finding.check}` }));
}

function free(folder: string): string {
  const { bavail, bsize } = statfsSync(folder);
  return formatBytes(bavail * bsize);
}
