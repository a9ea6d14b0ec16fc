/** Adapters beside quantised weights: branches, and gradients through weights that stay quantised. */
import { describe, expect, it } from 'vitest';
import { emitStep } from '../../passes/targets/step.js';
import { numbers, runModel } from '../helpers/run.js';
import { Driver, type Outputs } from '../targets/driver.js';
import {
  batchOf,
  CASES,
  dequantised,
  inputsOf,
  logitsOf,
  modelOf,
  quantisedLinears,
  relative,
  weightOnly,
  withLora,
} from './fixtures.js';

const EPSILON = 2 ** -24;
/** Two summations of up to 24 products each, through one layer of a dozen ops. */
const TOLERANCE = 200 * EPSILON;

/** Without ONNX Runtime's own rewriting: it replaces DequantizeLinear and MatMul by a product with 8-bit activations. */
const PLAIN = { graphOptimizationLevel: 'disabled' } as const;

function gradientsOf({ manifest }: Driver, outputs: Outputs): Map<string, number[]> {
  return new Map(manifest.params.map(({ key, gradient }) => [key, numbers(outputs[gradient as string])]));
}

describe.each(CASES)('$name', (test) => {
  it('finds the linears and computes what ONNX Runtime computed', async () => {
    const model = modelOf(test);
    expect(quantisedLinears(model).length).toBeGreaterThanOrEqual(test.architecture === 'bert' ? 6 : 8);
    const { logits } = await runModel(model, inputsOf(test));
    expect(relative(numbers(logits), logitsOf(test))).toBeLessThan(1e-5);
  });

  it('is read as its kernels read it', async () => {
    const kernels = numbers((await runModel(modelOf(test), inputsOf(test), PLAIN)).logits);
    const floats = numbers((await runModel(dequantised(modelOf(test)), inputsOf(test), PLAIN)).logits);
    // Activations in 8 bits cost a few hundredths; a wrong nibble or zero point costs the whole.
    expect(relative(floats, kernels)).toBeLessThan(weightOnly(test) ? TOLERANCE : 0.1);
  });

  it('trains LoRA beside the quantised weights', async () => {
    const batch = batchOf(test);
    const adapted = withLora(modelOf(test));
    const driver = await Driver.open(adapted, emitStep(adapted, { loss: test.task, gradients: true }), PLAIN);
    const first = await driver.step(batch, 0);
    const gradients = gradientsOf(driver, first);
    expect([...gradients.values()].every((g) => g.some((v) => v !== 0))).toBe(true);

    const float = withLora(dequantised(modelOf(test)));
    const reference = await Driver.open(float, emitStep(float, { loss: test.task, gradients: true }), PLAIN);
    const expected = await reference.step(batch, 0);
    const keys = [...gradients.keys()];
    const own = keys.flatMap((key) => gradients.get(key) ?? []);
    const theirs = keys.flatMap((key) => gradientsOf(reference, expected).get(key) ?? []);
    expect(theirs).toHaveLength(own.length);
    if (weightOnly(test)) {
      expect(relative(numbers(first.loss), numbers(expected.loss))).toBeLessThan(TOLERANCE);
      expect(relative(own, theirs)).toBeLessThan(TOLERANCE);
    } else {
      // The direction is that of the float model, but for what 8 bits of activations do to it.
      const dot = own.reduce((sum, v, i) => sum + v * (theirs[i] ?? 0), 0);
      expect(dot / (Math.hypot(...own) * Math.hypot(...theirs))).toBeGreaterThan(0.95);
    }
    const before = numbers(first.loss)[0] as number;
    for (let i = 0; i < 8; i++) await driver.step(batch, 0.02);
    expect(numbers((await driver.run('eval', batch)).loss)[0]).toBeLessThan(before);
    await driver.close();
    await reference.close();
  });
});
