/** Numbers of torch's generator that PEFT files leave to a seed; expected values are torch 2.13's. */
import { expect, it } from 'vitest';
import { mersenneTwister, randomPlaces } from '../../passes/methods/parts/torch-random.js';

it.each([
  { length: 50, seed: 777, first: [35, 28, 45, 47, 5, 7, 21, 2] },
  { length: 4096, seed: 5, first: [2915, 2785, 119, 1431, 2586] },
])('randperm($length) of seed $seed', ({ length, seed, first }) => {
  expect(randomPlaces(length, seed, first.length)).toEqual(first);
});

it('a whole permutation has every place once', () => {
  expect(randomPlaces(700, 3, 700).sort((a, b) => a - b)).toEqual(Array.from({ length: 700 }, (_, i) => i));
});

it('the generator goes on behind its first 624 numbers', () => {
  const next = mersenneTwister(5489);
  let last = 0;
  for (let i = 0; i < 10_000; i++) last = next();
  // The check value of the C++ standard for mt19937.
  expect(last).toBe(4123659995);
});
