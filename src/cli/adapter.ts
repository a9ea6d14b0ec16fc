import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { methodsOf } from '../../passes/adapter-record.js';
import { loadArtifacts, MANIFEST_FILE } from '../../runtime/artifacts.js';
import { storedElements } from '../../runtime/collapse.js';
import { writeOrtAdapter } from '../../runtime/ort-training/adapter.js';
import { ORT_TRAINING_FILES } from '../../runtime/ort-training/artifacts.js';
import { isOrtCheckpoint } from '../../runtime/ort-training/read-checkpoint.js';
import { adapterOfCheckpoint } from '../../runtime/train/save.js';
import { fail } from '../errors.js';
import { readModel } from '../onnx/index.js';
import pc from './colour.js';
import { writing } from './options.js';
import { formatCount, print, printJson } from './output.js';

interface AdapterFlags {
  readonly checkpoint: string;
  readonly out: string;
  readonly take?: string;
  readonly force?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

export function adapterCommand(): Command {
  return writing(
    new Command('adapter')
      .summary('write the adapter file of a checkpoint')
      .description(
        "Write the adapter that a checkpoint stands for, as train does at the end of a run: frozen tensors join the trained ones, and structure that only training needs is evaluated and left out. Checkpoints of ONNX Runtime's on-device training are read too.",
      )
      .argument(
        '<model>',
        'adapted ONNX model, the folder of graphs, or the training model, that the run trained',
      )
      .requiredOption(
        '-c, --checkpoint <file>',
        'file of the checkpoints folder of the run, its adapter.safetensors, or what SaveCheckpoint wrote',
      )
      .option('--take <name>', 'which adapter, of those that combine --trainable put together')
      .requiredOption('-o, --out <file>', 'where the adapter goes'),
  )
    .addHelpText(
      'after',
      `
Examples:
  peft-compile adapter adapted.onnx --checkpoint run/checkpoints/best.safetensors -o best.safetensors
  peft-compile adapter on-device/training_model.onnx --checkpoint on-device/checkpoint -o adapter.safetensors`,
    )
    .action(run);
}

async function run(path: string, flags: AdapterFlags): Promise<void> {
  const { checkpoint, out, take, force = false } = flags;
  const one = take === undefined ? {} : { take };
  // A folder for the runtime goes with nothing else, and what is wrong with a file there its reader says.
  const onDevice = isOrtCheckpoint(checkpoint) || existsSync(join(path, ORT_TRAINING_FILES.training));
  if (onDevice && take !== undefined)
    fail('E_USAGE', {
      message: "--take reads no checkpoint of ONNX Runtime's",
      remedy: 'Write its adapter file first, and take from that: --checkpoint adapter.safetensors',
    });
  const { record } = onDevice
    ? await writeOrtAdapter(checkpoint, out, { model: readModel(trainingModel(path)), force })
    : await adapterOfCheckpoint(
        existsSync(join(path, MANIFEST_FILE)) ? await loadArtifacts(path) : readModel(path),
        checkpoint,
        out,
        { ...one, force },
      );
  const stored = storedElements(record);
  if (flags.json === true) printJson({ adapter: out, methods: methodsOf(record), stored });
  else if (flags.quiet !== true)
    print(`${methodsOf(record)}: ${formatCount(stored)} weights in ${pc.green(out)}`);
}

/** The training model of a folder that emit wrote, or the file itself. */
function trainingModel(path: string): string {
  const inside = join(path, ORT_TRAINING_FILES.training);
  return existsSync(inside) ? inside : path;
}
