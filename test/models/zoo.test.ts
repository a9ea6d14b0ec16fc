/** The zoo: small random models of many families by both of torch's exporters (`fixtures/generate/zoo.py`). */
import { checkedFixtures } from './fixtures.js';
import { checkModels } from './harness.js';

checkModels('zoo', checkedFixtures('zoo'));
