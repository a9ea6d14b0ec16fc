/** Starts measured processes and reads what they print. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../src/errors.js';
import { REPORT_VARIABLE } from './exit-report.js';
import { builtFile, repositoryFile } from './root.js';
import type { Json } from './task.js';

/** One task of `tasks/` in a process of its own. */
export async function runTask(name: string, input: Json): Promise<Json> {
  const { stdout } = await run(process.execPath, [
    builtFile('runtime/bench/child.js'),
    name,
    JSON.stringify(input),
  ]);
  return lastObject(stdout, name);
}

/** The `peft-compile` command as a user starts it: `wallMs` from start to end, `peakMiB`. */
export async function runCommand(args: readonly string[], folder: string): Promise<Json> {
  const report = join(folder, 'exit-report.json');
  const { wallMs } = await run(
    process.execPath,
    ['--import', builtFile('runtime/bench/exit-report.js'), builtFile('src/cli/main.js'), ...args],
    { [REPORT_VARIABLE]: report },
  );
  return { ...(JSON.parse(readFileSync(report, 'utf8')) as Json), wallMs };
}

/** A script of `peers/`; `wallMs` is added to what it prints. */
export async function runPeer(python: string, script: string, spec: Json): Promise<Json> {
  const path = repositoryFile('runtime', 'bench', 'peers', script);
  const { stdout, wallMs } = await run(python, [path, JSON.stringify(spec)]);
  return { ...lastObject(stdout, script), wallMs };
}

/** Whether this Python has all packages of the peers. */
export async function hasPeers(python: string): Promise<boolean> {
  try {
    await run(python, [
      '-c',
      'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ["torch", "transformers", "peft", "onnx", "onnxscript"])))',
    ]);
    return true;
  } catch {
    return false;
  }
}

function run(
  command: string,
  args: readonly string[],
  variables: Readonly<Record<string, string>> = {},
): Promise<{ stdout: string; wallMs: number }> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...variables },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text: Buffer) => {
      stdout += text.toString();
    });
    child.stderr.on('data', (text: Buffer) => {
      stderr = (stderr + text.toString()).slice(-4000);
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve({ stdout, wallMs: performance.now() - start });
      else
        try {
          fail('E_RUNTIME', {
            message: `A measured process ended with ${signal ?? `status ${code}`}: ${stderr.trim()}`,
            where: `${command} ${args.join(' ')}`,
          });
        } catch (error) {
          reject(error);
        }
    });
  });
}

/** The last line that is a JSON object; libraries may print above it. */
function lastObject(stdout: string, where: string): Json {
  const line = stdout
    .trim()
    .split('\n')
    .findLast((text) => text.startsWith('{'));
  if (line === undefined) fail('E_RUNTIME', { message: 'A measured process printed no figures', where });
  return JSON.parse(line) as Json;
}
