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
import { addOptionGroups, type OptionGroup } from './option-groups.js';
import { integer, writing } from './options.js';
import { print, printJson, warn } from './output.js';

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

/** Tasks that PEFT knows (peft.TaskType). */
const TASKS = ['SEQ_CLS', 'SEQ_2_SEQ_LM', 'CAUSAL_LM', 'TOKEN_CLS', 'QUESTION_ANS', 'FEATURE_EXTRACTION'];

const GROUPS: readonly OptionGroup<ExportFlags>[] = [
  { needs: '--format peft', fits: ({ format }) => format === 'peft', add: addPeftOptions },
  {
    needs: '--format onnx_adapter',
    fits: ({ format }) => format === 'onnx_adapter',
    add: addOnnxAdapterOptions,
  },
];

export function exportCommand(): Command {
  const command = writing(
    new Command('export')
      .summary('write an adapter in the format of another tool')
      .description('Write an adapter in the format of another tool.')
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
      .option('--model <base>', 'the base model: reads foreign adapters, and splits packed projections'),
  );
  const refuseMisplaced = addOptionGroups(addConfigOptions(command), GROUPS);
  return command
    .addHelpText(
      'after',
      `
Formats:
${entries(EXPORT_FORMATS)}

Names of an onnx_adapter:
${entries(DIALECTS)}

Examples:
  peft-compile export run/adapter.safetensors --format peft --task CAUSAL_LM -o my-adapter/
  peft-compile export run/adapter.safetensors --format onnx_adapter -o adapter.onnx_adapter
  peft-compile export my-adapter/ --model llama.onnx --format onnx_adapter --names olive -o adapter.onnx_adapter`,
    )
    .action(async (path: string, flags: ExportFlags) => {
      refuseMisplaced(flags, `--format ${flags.format}`);
      await run(path, flags);
    });
}

function entries(list: readonly { readonly id: string; readonly summary: string }[]): string {
  const width = Math.max(...list.map(({ id }) => id.length));
  return list.map(({ id, summary }) => `  ${id.padEnd(width)}  ${summary}`).join('\n');
}

function addPeftOptions(command: Command): Command {
  return command
    .option('--base <name>', 'name or path of the base, as from_pretrained takes it')
    .addOption(choice('--task <type>', 'task of the model; prompts and prefixes need it', TASKS))
    .option('--map <file>', 'JSON: module of the graph to module in PEFT, where names differ')
    .option('--conv1d', 'modules that are stored whole are Conv1D, as those of GPT-2');
}

function addOnnxAdapterOptions(command: Command): Command {
  return command
    .addOption(
      choice(
        '--names <dialect>',
        'names of the tensors, as emit --adapter-io inputs has them',
        DIALECTS.map(({ id }) => id),
      ).default('own'),
    )
    .addOption(
      choice(
        '--scale <place>',
        'alpha/r goes into B, into an input of its own, or stays in the graph',
        SCALE_PLACES,
      ).default('factor'),
    )
    .addOption(choice('--dtype <type>', 'element type; default: that of the adapter', ['float32', 'float16']))
    .option('--adapter-version <n>', 'number of the adapter (default: 1)', integer)
    .option('--model-version <n>', 'number of the base (default: a fingerprint of its weights)', integer);
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
  if (flags.format === 'onnx_adapter' && flags.scale === 'graph')
    warn(
      'note: alpha/r is not in this file; feed it to a graph of emit --scale graph, for fold and combine would take it as 1',
    );
  if (flags.json === true) {
    printJson(report);
    return;
  }
  const type = report.type === undefined ? report.format : `${report.format}, ${report.type}`;
  print(`${report.tensors} tensors (${type}) written to ${report.out}`);
}
