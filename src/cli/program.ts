/** The command tree, and what happens around a verb: signals, errors, exit statuses. */
import { Command, CommanderError, Option } from 'commander';
import { EXIT, PeftCompileError } from '../errors.js';
import { cleanupPending } from '../onnx/index.js';
import pc from './colour.js';
import { interruption } from './interrupt.js';
import { printJson, setQuiet, warn } from './output.js';
import { packageVersion } from './package-file.js';
import { VERBS, type Verb, verbsFor } from './verbs.js';

const EXIT_HELP = `
Exit status:
  0 done   1 unexpected error   2 usage or configuration   3 unreadable or unfitting input
  4 nothing matched   5 verification failed   6 file exists (--force)   7 not supported   130 interrupted

Start here:
  peft-compile inspect model.onnx                      what can be adapted and trained
  peft-compile insert model.onnx --targets query value -o adapted.onnx
  peft-compile train adapted.onnx --data train.jsonl --tokenizer tokenizer.json --loss classification -o run/
  peft-compile fold model.onnx --adapter run/adapter.safetensors --verify -o merged.onnx`;

/** Parses and runs a command line; returns the exit status. */
export async function run(argv: readonly string[]): Promise<number> {
  process.exitCode = undefined;
  const stop = interruption(() => cleanupPending());
  ignoreClosedPipe();
  try {
    const program = await buildProgram(verbsFor(argv.slice(2)));
    await program.parseAsync([...argv]);
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT.ok;
  } catch (error) {
    return report(error, { debug: argv.includes('--debug'), json: argv.includes('--json') });
  } finally {
    stop();
  }
}

/** The command tree, whole by default. */
export async function buildProgram(verbs: readonly Verb[] = VERBS): Promise<Command> {
  const program = new Command('peft-compile')
    .description(
      'Parameter-efficient fine-tuning over ONNX graphs: insert adapters, train them, fold them back with proof.',
    )
    .version(packageVersion(), '-V, --version')
    .option('--debug', 'print stack traces of errors')
    .addHelpText('after', EXIT_HELP)
    .showSuggestionAfterError(true)
    .showHelpAfterError('(add --help for the options)')
    .exitOverride()
    .hook('preAction', (_program, verb) => setQuiet(verb.opts<{ quiet?: boolean }>().quiet === true));
  for (const verb of await Promise.all(verbs.map(({ load }) => load()))) {
    const command = verb().copyInheritedSettings(program);
    command.addOption(new Option('--debug', 'print stack traces of errors').hideHelp());
    program.addCommand(command);
  }
  return program;
}

/** A reader that has seen enough (`… | head`) is no failure, also of what is written out after the verb is done. */
function ignoreClosedPipe(): void {
  if (!process.stdout.listeners('error').includes(onOutputError)) process.stdout.on('error', onOutputError);
}

function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
}

interface ReportStyle {
  readonly debug: boolean;
  readonly json: boolean;
}

/** Says what went wrong: a line on stderr and, where JSON was asked for, an object on stdout. Returns the exit status. */
function report(error: unknown, { debug, json }: ReportStyle): number {
  if (error instanceof CommanderError) {
    // Commander has printed its own message; help and version are no failures.
    if (error.exitCode === 0) return EXIT.ok;
    if (json) printError('E_USAGE', EXIT.usage, error.message.replace(/^error: /, ''));
    return EXIT.usage;
  }
  if (error instanceof PeftCompileError) {
    const { code, exitCode, message, where, remedy } = error;
    warn(`${pc.red('error')} ${pc.dim(code)} ${message}`);
    if (debug) warn(error.stack ?? '');
    if (json) printError(code, exitCode, message, { where, remedy });
    return exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  warn(`${pc.red('error')} ${text}`);
  warn(pc.dim('This is a defect of peft-compile; please report it with the command line.'));
  if (json) printError('E_UNEXPECTED', EXIT.unexpected, text);
  return EXIT.unexpected;
}

function printError(code: string, exitCode: number, message: string, details: object = {}): void {
  printJson({ error: { code, exitCode, message, ...details } });
}
