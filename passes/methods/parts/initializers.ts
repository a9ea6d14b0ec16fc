/** Initial distributions that several methods share. */
import { fillNormal, type Initializer, uniform } from '../../../src/initializer.js';

/** Kaiming-uniform with a = √5 over `fanIn` inputs: what torch gives weights and biases of `Linear`. */
export function linearDefault(fanIn: number): Initializer {
  return uniform(1 / Math.sqrt(fanIn));
}

/** Xavier-uniform: bound gain·√(6 / (fanIn + fanOut)). */
export function xavierUniform(fanIn: number, fanOut: number, gain = 1): Initializer {
  return uniform(gain * Math.sqrt(6 / (fanIn + fanOut)));
}

/** Normal with standard deviation `std`, drawn again beyond two of them. */
export function truncatedNormal(std: number): Initializer & { readonly std: number } {
  return {
    kind: 'truncated-normal',
    std,
    fill(target, random) {
      const pair = new Float64Array(2);
      for (let i = 0; i < target.length; ) {
        fillNormal(pair, random);
        for (const value of pair) if (Math.abs(value) <= 2 && i < target.length) target[i++] = value * std;
      }
    },
  };
}
