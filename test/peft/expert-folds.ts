/** LoRAs of peft at experts in one tensor, folded and compared with the logits of its merged model. */
import ort from 'onnxruntime-node';
import { expect } from 'vitest';
import { fold } from '../../runtime/fold/fold.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, numbersOf, readTensors } from '../helpers/fixtures.js';
import { numbers, runModel } from '../helpers/run.js';
import { relativeError } from './folders.js';

export const TOLERANCE = 1e-5;

/** Difference of the folded model's logits from those that peft's merged model gives; the merged model is left at `out`. */
export async function foldedError(
  model: string,
  name: string,
  out: string,
  map: Readonly<Record<string, string>> = {},
): Promise<number> {
  const adapter = fixturePath('peft-experts', name);
  const { proof } = await fold({ model, adapter, out, peft: { map }, force: true });
  expect(proof?.holds).toBe(true);
  const tensors = readTensors(fixturePath('zoo', `${name}.safetensors`));
  const feeds = Object.fromEntries(
    ['input_ids', 'attention_mask'].map((input) => {
      const { bytes, shape } = tensors.get(`case0.${input}`)!;
      return [input, new ort.Tensor('int64', new BigInt64Array(bytes.buffer as ArrayBuffer), [...shape])];
    }),
  );
  const { logits } = await runModel(readModel(out), feeds);
  const expected = readTensors(fixturePath('peft-experts', 'logits.safetensors')).get(name)!;
  return relativeError(numbers(logits), Array.from(numbersOf(expected)));
}
