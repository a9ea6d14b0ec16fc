import { join } from 'node:path';
import { expect, it } from 'vitest';
import { modelsDocs } from '../scripts/models-docs.js';
import { repositoryRoot } from './helpers/fixtures.js';

it('docs/models.md says what the models can do; `npx vitest run test/models-docs.test.ts -u` rewrites it', async () => {
  await expect(modelsDocs(repositoryRoot)).toMatchFileSnapshot(join(repositoryRoot, 'docs/models.md'));
});
