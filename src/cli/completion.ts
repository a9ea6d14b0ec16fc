/** Shell completion, generated from the command tree. */
import { Argument, Command } from 'commander';
import { emitText } from './output.js';

/** What completes after each verb: its options, and the words that an option or an argument is limited to. */
interface Words {
  readonly verb: string;
  readonly options: readonly string[];
  /** Words that its first argument is limited to. */
  readonly words: readonly string[];
  readonly choices: readonly { readonly option: string; readonly values: readonly string[] }[];
}

const SHELLS: Readonly<Record<string, (words: readonly Words[]) => string>> = {
  bash: bashScript,
  // zsh runs the same function through its emulation of bash completion.
  zsh: (words) => `autoload -U +X bashcompinit && bashcompinit\n${bashScript(words)}`,
};

export function completionCommand(): Command {
  return new Command('completion')
    .summary('print a completion script for a shell')
    .addArgument(new Argument('<shell>', 'the shell').choices(Object.keys(SHELLS)))
    .addHelpText(
      'after',
      `
Examples:
  source <(peft-compile completion bash)
  peft-compile completion zsh >> ~/.zshrc`,
    )
    .action((shell: string, _flags: object, command: Command) => {
      const script = SHELLS[shell];
      if (script !== undefined) emitText(script(wordsOf(command.parent?.commands ?? [])));
    });
}

function wordsOf(commands: readonly Command[]): Words[] {
  return commands.map((command) => ({
    verb: command.name(),
    options: command.options.flatMap(({ long, hidden }) => (long && !hidden ? [long] : [])),
    words: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
    choices: command.options.flatMap(({ long, argChoices }) =>
      long && argChoices ? [{ option: long, values: argChoices }] : [],
    ),
  }));
}

function bashScript(words: readonly Words[]): string {
  const choices = words.flatMap(({ verb, choices }) =>
    choices.map(({ option, values }) => `    ${verb}:${option}) words="${values.join(' ')}" ;;`),
  );
  const options = words.map(({ verb, options }) => `      ${verb}) words="${options.join(' ')}" ;;`);
  const limited = words.filter((entry) => entry.words.length > 0);
  const first = limited.map((entry) => `      ${entry.verb}) words="${entry.words.join(' ')}" ;;`);
  return `_peft_compile() {
  local verb="\${COMP_WORDS[1]}" current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="${words.map(({ verb }) => verb).join(' ')}"
  else case "$verb:$previous" in
${choices.join('\n')}
    *) case "$current" in -*) case "$verb" in
${options.join('\n')}
    esac ;; *) case "$verb" in
${first.join('\n')}
    esac ;; esac ;;
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _peft_compile peft-compile`;
}
