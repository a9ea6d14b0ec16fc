import { Command } from 'commander';
import { inferModel } from '../infer/index.js';
import { readModel } from '../onnx/index.js';
import { printModel } from '../text/index.js';
import { emitText, printJson } from './output.js';

interface PrintFlags {
  readonly types?: boolean;
  readonly structure?: boolean;
  readonly json?: boolean;
}

export function printCommand(): Command {
  return new Command('print')
    .summary('print a model in the ONNX textual syntax')
    .argument('<model>', 'ONNX model')
    .option('--types', 'infer types and print them as comments')
    .option('--structure', 'leave payloads out: the text that the fold proof compares')
    .option('--json', 'print an object with the text')
    .action((path: string, flags: PrintFlags) => {
      const model = readModel(path);
      if (flags.types === true) inferModel(model);
      const text = printModel(model, {
        types: flags.types ?? false,
        structureOnly: flags.structure ?? false,
      });
      if (flags.json === true) printJson({ model: path, text });
      else emitText(text);
    });
}
