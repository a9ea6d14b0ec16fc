/** Models after ONNX Runtime's fusions, and ORT GenAI's own graphs (`fixtures/generate/fused.py`). */
import { checkedFixtures } from './fixtures.js';
import { checkModels } from './harness.js';

checkModels('fused', checkedFixtures('fused'));
