/** Options that say how data files are read, and what help says of them. */
import type { Command } from 'commander';
import type { TrainOptions } from '../../runtime/train/options.js';
import { defined } from './defined.js';
import { count } from './options.js';

export interface DataFlags {
  readonly tokenizer?: string;
  readonly maxLength?: number;
}

export const DATA_HELP = `
Forms of data:
  .txt                 running text, cut into blocks (causal-lm)
  .jsonl               {"text": …} or {"text": …, "label": …} lines with --tokenizer, or named arrays of numbers
  .safetensors         named tensors whose first axis is the example
`;

export function addDataOptions(command: Command): Command {
  return command
    .option('--tokenizer <file>', 'tokenizer.json, for texts')
    .option('--max-length <n>', 'longest token sequence; block length of plain text', count);
}

export function loadOptions({ tokenizer, maxLength }: DataFlags): NonNullable<TrainOptions['load']> {
  return defined({ tokenizer, maxLength });
}
