/**
 * Every method against torch (`fixtures/reference/methods`): outputs with random parameters, gradients, twenty optimizer
 * steps, trained outputs, and the merged model, on every export of the architecture. A method joins with a mapping of its
 * tensors in `mappings/`. REFERENCE_ERRORS=1 prints the errors of every run.
 */
import { describe, expect, it } from 'vitest';
import { MAPPINGS } from './mappings/index.js';
import { exportsOf, references, replay } from './reference-support.js';

/** Methods whose runs are replayed with their work between steps, in a test file of their own. */
const ELSEWHERE: ReadonlySet<string> = new Set(['adalora']);

/** Part `index` of `count` of the runs: one file each, so that they run beside each other. */
export function replays(index: number, count: number): void {
  const part = references().filter(({ method }, i) => i % count === index && !ELSEWHERE.has(method));
  describe.each(part.map((reference) => [reference.name, reference] as const))('%s', (_, reference) => {
    const mapping = MAPPINGS[reference.method];
    if (mapping === undefined) throw new Error(`There is no mapping of ${reference.method}`);
    it.each(exportsOf(reference, mapping).map((fixture) => [fixture.name, fixture] as const))(
      'on %s',
      async (_, fixture) => {
        const errors = await replay(reference, mapping, fixture);
        if (process.env.REFERENCE_ERRORS !== undefined)
          console.log(reference.name, fixture.name, JSON.stringify(errors));
        expect(errors.output).toBeLessThan(1e-5);
        expect(errors.merged ?? 0).toBeLessThan(1e-5);
        expect(errors.gradient).toBeLessThan(1e-5);
        expect(errors.loss).toBeLessThan(1e-4);
        expect(errors.norm).toBeLessThan(1e-3);
        expect(errors.final).toBeLessThan(1e-3);
        expect(errors.trained).toBeLessThan(1e-3);
      },
    );
  });
}
