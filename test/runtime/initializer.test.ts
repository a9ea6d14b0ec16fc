import { describe, expect, it } from 'vitest';
import { digestBytes } from '../../runtime/digest.js';
import { numbersOf } from '../../runtime/host-tensor.js';
import {
  constant,
  InitData,
  initialValues,
  initTensor,
  normal,
  uniform,
  zeros,
} from '../../src/initializer.js';
import { refuses } from './refuses.js';

function moments(values: ArrayLike<number>) {
  const list = Array.from(values);
  const mean = list.reduce((s, x) => s + x, 0) / list.length;
  const variance = list.reduce((s, x) => s + (x - mean) ** 2, 0) / list.length;
  return { mean, variance, min: Math.min(...list), max: Math.max(...list) };
}

describe('initializers', () => {
  it('has the moments of its distribution', () => {
    const n = 40_000;
    // Five standard errors: σ/√n for the mean; for the variance √(μ₄ − σ⁴)/√n, which is √2σ²/√n (normal), √(4/45)b²/√n (uniform).
    const u = moments(initialValues(uniform(0.25), n, 1, 'u'));
    const sigma = 0.25 / Math.sqrt(3);
    expect(Math.abs(u.mean)).toBeLessThan((5 * sigma) / Math.sqrt(n));
    expect(Math.abs(u.variance - sigma ** 2)).toBeLessThan((5 * Math.sqrt(4 / 45) * 0.0625) / Math.sqrt(n));
    expect(u.min).toBeGreaterThanOrEqual(-0.25);
    expect(u.max).toBeLessThan(0.25);
    const g = moments(initialValues(normal(0.02), n, 1, 'g'));
    expect(Math.abs(g.mean)).toBeLessThan((5 * 0.02) / Math.sqrt(n));
    expect(Math.abs(g.variance - 4e-4)).toBeLessThan((5 * Math.SQRT2 * 4e-4) / Math.sqrt(n));
  });

  it('gives each seed and key its own stream, whatever is read first or in which pieces', () => {
    const make = (seed: number, key: string) => new InitData(normal(1), 'float32', [7, 3], seed, key);
    const whole = make(3, 'a').read(0, 84);
    const again = make(3, 'a');
    again.read(80, 4);
    expect(again.read(0, 40)).toEqual(whole.subarray(0, 40));
    expect(make(4, 'a').read(0, 84)).not.toEqual(whole);
    expect(make(3, 'b').read(0, 84)).not.toEqual(whole);
  });

  it('keeps its bytes from release to release', () => {
    const bytes = [uniform(0.5), normal(1), zeros, constant(2)].map((init) =>
      digestBytes(new InitData(init, 'float32', [101], 42, 'layers.0.q.A').read(0, 404)).slice(0, 23),
    );
    expect(bytes).toMatchInlineSnapshot(`
      [
        "sha256:8a18c57e16278821",
        "sha256:dcf48d4a11a1e3be",
        "sha256:0441772f66559a1c",
        "sha256:0e99e6bd589dc9ea",
      ]
    `);
  });

  it('rounds to half precision and refuses integers', async () => {
    const half = initTensor(constant(1 / 3), 'bfloat16', [2], 0, 'k');
    expect([...numbersOf({ ...half, data: half.data.read(0, 4) })]).toEqual([0.333984375, 0.333984375]);
    await refuses(() => initTensor(zeros, 'int64', [2], 0, 'k'), 'E_UNSUPPORTED');
  });
});
