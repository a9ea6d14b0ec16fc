import { Command } from 'commander';
import { readAdapter } from '../../runtime/adapter-file.js';
import { EXPORT_FORMATS, type ExportFormat } from '../../runtime/export/formats.js';
import { readModuleMap } from '../../runtime/peft/map-file.js';
import { choice } from './choice.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { writing } from './options.js';
import { print, printJson } from './output.js';

interface ExportFlags {
  readonly format: string;
  readonly out: string;
  readonly base?: string;
  readonly task?: string;
  readonly map?: string;
  readonly conv1d?: boolean;
  readonly config?: string | false;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function exportCommand(): Command {
  const command = writing(
    new Command('export')
      .summary('write an adapter in the format of another tool')
      .description(
        `Write an adapter in the format of another tool: ${EXPORT_FORMATS.map(({ id, summary }) => `${id} (${summary})`).join('; ')}.`,
      )
      .argument('<adapter>', 'adapter.safetensors of a training run')
      .requiredOption('-o, --out <path>', 'where it goes: a folder for peft, a file for the others')
      .addOption(
        choice(
          '-f, --format <format>',
          'what is written',
          EXPORT_FORMATS.map(({ id }) => id),
        ).default('peft'),
      )
      .option('--base <name>', 'peft: name or path of the base, as from_pretrained takes it')
      .option('--task <type>', 'peft: CAUSAL_LM, SEQ_CLS, …; prompts and prefixes need it')
      .option('--map <file>', 'peft: JSON, module of the graph to module in PEFT, where names differ')
      .option('--conv1d', 'peft: modules that are stored whole are Conv1D, as those of GPT-2'),
  );
  return addConfigOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile export run/adapter.safetensors --format peft --task CAUSAL_LM -o my-adapter/
  peft-compile export run/adapter.safetensors --format onnx_adapter -o adapter.onnx_adapter`,
    )
    .action(run);
}

async function run(path: string, flags: ExportFlags): Promise<void> {
  const user = await loadUserConfig(flags.config);
  const format = EXPORT_FORMATS.find(({ id }) => id === flags.format) as ExportFormat;
  const report = await format.write(await readAdapter(path), flags.out, {
    force: flags.force ?? false,
    conv1d: flags.conv1d ?? false,
    methods: user.methods,
    ...(flags.base === undefined ? {} : { base: flags.base }),
    ...(flags.task === undefined ? {} : { task: flags.task }),
    ...(flags.map === undefined ? {} : { rename: readModuleMap(flags.map) }),
  });
  if (flags.json === true) {
    printJson(report);
    return;
  }
  const type = report.type === undefined ? report.format : `${report.format}, ${report.type}`;
  print(`${report.tensors} tensors (${type}) written to ${report.out}`);
}
