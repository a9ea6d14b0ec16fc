import { join } from 'node:path';
import { expect, it } from 'vitest';
import { methodsDocs } from '../scripts/methods-docs.js';
import { repositoryRoot } from './helpers/fixtures.js';

it('docs/methods.md says what the methods are; `npx vitest run test/methods-docs.test.ts -u` rewrites it', async () => {
  await expect(methodsDocs(repositoryRoot)).toMatchFileSnapshot(join(repositoryRoot, 'docs/methods.md'));
});
