/**
 * Every model of the fixtures that trains is taken by ONNX Runtime's training API, learns there, and takes the course of
 * the step target.
 */
import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fixturePath } from '../helpers/fixtures.js';
import { checkedFixtures, FIXTURE_FOLDERS } from '../models/fixtures.js';
import { difference } from '../ort-training/agreement.js';
import { courses, type Trainee } from '../ort-training/fixture-course.js';
import { installed } from '../ort-training/training-runtime.js';
import { CASES } from '../quantised/fixtures.js';

type Named = readonly [name: string, trainee: Trainee, dtype: string];

const described = FIXTURE_FOLDERS.flatMap((folder) =>
  checkedFixtures(folder, ({ limits }) => limits?.train === undefined).map(
    (fixture): Named => [`${folder}/${fixture.name}`, fixture, fixture.dtype],
  ),
);

/** Decoders with a past have no descriptions: all of them are language models. */
const decoders = readdirSync(fixturePath('decoders'))
  .filter((file) => file.endsWith('.onnx'))
  .map((file): Named => {
    const trainee = { path: fixturePath('decoders', file), loss: { id: 'causal-lm', config: {} } };
    return [`decoders/${file.replace('.onnx', '')}`, trainee, 'float32'];
  });

const quantised = CASES.map(({ name, task }): Named => {
  const trainee = { path: fixturePath('quantised', `${name}.onnx`), loss: { id: task, config: {} } };
  return [`quantised/${name}`, trainee, 'float32'];
});

/**
 * Relative to a loss, and to the largest number of a parameter. Losses fall to a fiftieth, and Adam divides by gradients
 * that are small: both multiply rounding, which float16 casts do at other places in the two runtimes.
 */
const TOLERANCES: Readonly<Record<string, { readonly losses: number; readonly params: number }>> = {
  float32: { losses: 5e-5, params: 1e-3 },
  float16: { losses: 2e-2, params: 0.3 },
  // Computed in float32 by both.
  bfloat16: { losses: 5e-5, params: 1e-3 },
};

describe.skipIf(!installed)('the training API', () => {
  it.each([...described, ...decoders, ...quantised])('trains %s', async (_, trainee, dtype) => {
    const { theirs, ours } = await courses(trainee, 6, { frozen: 'checkpoint' });
    const { losses, params } = difference(theirs, ours);
    expect(theirs.losses.at(-1)).toBeLessThan(theirs.losses[0]!);
    expect(losses).toBeLessThan(TOLERANCES[dtype]!.losses);
    expect(params).toBeLessThan(TOLERANCES[dtype]!.params);
  });
});
