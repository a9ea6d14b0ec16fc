/** The models of the suites. */
import { BERT_BASE_6, type BertShape } from './bert.js';

export const BERT_BASE: BertShape = { ...BERT_BASE_6, layers: 12 };

/** 1.03 GB of float32 weights in the proportions of BERT-large. */
export const BERT_1GB: BertShape = {
  layers: 18,
  hidden: 1024,
  heads: 16,
  intermediate: 4096,
  vocab: 30522,
  positions: 512,
  labels: 2,
};

/** Stands in for any of them with `--quick`. */
export const BERT_TINY: BertShape = {
  layers: 2,
  hidden: 64,
  heads: 4,
  intermediate: 128,
  vocab: 200,
  positions: 64,
  labels: 2,
};

/** `6 layers, width 768`. */
export function describeShape({ layers, hidden }: BertShape): string {
  return `${layers} layers, width ${hidden}`;
}
