import { Command } from 'commander';
import { DIALECTS } from '../../passes/targets/dialects.js';
import { SCALE_PLACES, type ScalePlace } from '../../passes/targets/serving.js';
import { readAdapter } from '../../runtime/adapter-file.js';
import { EXPORT_FORMATS, type ExportFormat } from '../../runtime/export/formats.js';
import { readModuleMap } from '../../runtime/peft/map-file.js';
import { readModel } from '../onnx/index.js';
import { choice } from './choice.js';
import { loadUserConfig } from './config.js';
import { addConfigOptions } from './config-option.js';
import { integer, writing } from './options.js';
import { print, printJson } from './output.js';

interface ExportFlags {
  readonly format: string;
  readonly out: string;
  readonly base?: string;
  readonly task?: string;
  readonly map?: string;
  readonly conv1d?: boolean;
  readonly names: string;
  readonly scale: ScalePlace;
  readonly dtype?: 'float32' | 'float16';
  readonly model?: string;
  readonly adapterVersion?: number;
  readonly modelVersion?: number;
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
      .argument(
        '<adapter>',
        'adapter.safetensors of a training run; with --model also a folder of PEFT or an .onnx_adapter',
      )
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
      .option('--conv1d', 'peft: modules that are stored whole are Conv1D, as those of GPT-2')
      .addOption(
        choice(
          '--names <dialect>',
          `onnx_adapter: ${DIALECTS.map(({ id, summary }) => `${id} (${summary})`).join('; ')}`,
          DIALECTS.map(({ id }) => id),
        ).default('own'),
      )
      .addOption(
        choice(
          '--scale <place>',
          'onnx_adapter: alpha/r goes into B, into an input of its own, or stays in the graph',
          SCALE_PLACES,
        ).default('factor'),
      )
      .addOption(choice('--dtype <type>', 'onnx_adapter: element type', ['float32', 'float16']))
      .option('--model <base>', 'the base model: reads foreign adapters, and splits packed projections')
      .option('--adapter-version <n>', 'onnx_adapter: number of the adapter (default: 1)', integer)
      .option(
        '--model-version <n>',
        'onnx_adapter: number of the base (default: a fingerprint of its weights)',
        integer,
      ),
  );
  return addConfigOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  peft-compile export run/adapter.safetensors --format peft --task CAUSAL_LM -o my-adapter/
  peft-compile export run/adapter.safetensors --format onnx_adapter -o adapter.onnx_adapter
  peft-compile export my-adapter/ --model llama.onnx --format onnx_adapter --names olive -o adapter.onnx_adapter`,
    )
    .action(run);
}

async function run(path: string, flags: ExportFlags): Promise<void> {
  const user = await loadUserConfig(flags.config);
  const format = EXPORT_FORMATS.find(({ id }) => id === flags.format) as ExportFormat;
  const model = flags.model === undefined ? undefined : readModel(flags.model);
  const adapter = await readAdapter(
    path,
    model === undefined ? undefined : { base: model, methods: user.methods },
  );
  const report = await format.write(adapter, flags.out, {
    force: flags.force ?? false,
    conv1d: flags.conv1d ?? false,
    methods: user.methods,
    names: flags.names,
    scale: flags.scale,
    ...(model === undefined ? {} : { model }),
    ...(flags.dtype === undefined ? {} : { dtype: flags.dtype }),
    ...(flags.adapterVersion === undefined ? {} : { adapterVersion: flags.adapterVersion }),
    ...(flags.modelVersion === undefined ? {} : { modelVersion: flags.modelVersion }),
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
