/** The zoo: small random models of many families by both of torch's exporters (`fixtures/generate/zoo.py`). */
import { checkedFixtures } from './fixtures.js';
import { checkModels } from './harness.js';

/** Part `index` of `count`: one file each, so that they run beside each other. */
export function zoo(index: number, count: number): void {
  const fixtures = checkedFixtures('zoo').filter((_, i) => i % count === index);
  checkModels(`zoo-${index + 1}`, fixtures);
}
