/** BERT, DistilBERT, RoBERTa, GPT-2 and Llama; static shapes add nothing here to what other tests say of them. */
import { checkedFixtures } from './fixtures.js';
import { checkModels } from './harness.js';

checkModels(
  'exports',
  checkedFixtures('models', ({ name }) => !name.endsWith('.static')),
);
