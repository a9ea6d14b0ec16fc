/** The command tree, and what happens around a verb: signals, errors, exit statuses. */
import { Command, CommanderError } from 'commander';
import pc from 'picocolors';
import { EXIT, PeftCompileError } from '../errors.js';
import { cleanupPending } from '../onnx/index.js';
import { interruption } from './interrupt.js';
import { warn } from './output.js';
import { packageVersion } from './package-file.js';
import { VERBS } from './verbs.js';

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
  const program = buildProgram();
  const stop = interruption(() => cleanupPending());
  try {
    await program.parseAsync([...argv]);
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT.ok;
  } catch (error) {
    return report(error, argv.includes('--debug'));
  } finally {
    stop();
  }
}

/** The whole command tree; also read by the documentation generator. */
export function buildProgram(): Command {
  const program = new Command('peft-compile')
    .description(
      'Parameter-efficient fine-tuning over ONNX graphs: insert adapters, train them, fold them back with proof.',
    )
    .version(packageVersion(), '-V, --version')
    .option('--debug', 'print stack traces of errors')
    .addHelpText('after', EXIT_HELP)
    .showSuggestionAfterError(true)
    .showHelpAfterError('(add --help for the options)');
  for (const verb of VERBS) program.addCommand(verb());
  for (const command of [program, ...program.commands]) command.exitOverride();
  return program;
}

function report(error: unknown, debug: boolean): number {
  // Commander has printed its own message; help and version are no failures.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (error instanceof PeftCompileError) {
    warn(`${pc.red('error')} ${pc.dim(error.code)} ${error.message}`);
    if (debug) warn(error.stack ?? '');
    return error.exitCode;
  }
  warn(`${pc.red('error')} ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  warn(pc.dim('This is a defect of peft-compile; please report it with the command line.'));
  return EXIT.unexpected;
}
