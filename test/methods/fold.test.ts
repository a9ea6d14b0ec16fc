/**
 * The battery of methods × exported models: identity at insertion, random parameters change the output, the fold equals
 * the unfolded graph, and the merged file is the base's graph. No branch on the method.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AdapterRecord } from '../../passes/adapter-record.js';
import { attachAdapter, insert } from '../../passes/insert.js';
import { siteKindsOf } from '../../passes/methods/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import { findSites } from '../../passes/sites/index.js';
import { writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { verify } from '../../runtime/verify.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { modelFixtures } from '../helpers/fixtures.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fold-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(METHODS.map((method) => [method.id, method] as const))('%s', (_id, method) => {
  const kinds = siteKindsOf(method);

  describe.each(modelFixtures().map((fixture) => [fixture.name, fixture] as const))(
    'on %s',
    (_name, fixture) => {
      const targets = () => {
        const sites = findSites(readModel(fixture.path)).filter(
          (site) => kinds.includes(site.kind) && (site.kind !== 'linear' || site.packedIn === undefined),
        );
        return { targets: [...new Set(sites.map(({ path, callOf }) => callOf ?? path))] };
      };
      // alpha is not the rank, so a forgotten scale shows.
      const config = { rank: 3, alpha: 5 };
      const inserted = (): { model: ReturnType<typeof readModel>; record: AdapterRecord } => {
        const model = readModel(fixture.path);
        const { record } = insert(model, { method, config, targeting: targets(), run: { validate: 'edit' } });
        return { model, record };
      };

      test('computes what the base computes until it is trained', async () => {
        const { model } = inserted();
        const report = await verify(fixture.path, model);
        expect(report.worst.relative).toBeLessThanOrEqual(report.tolerance);
      });

      test('folds to the same graph with the same outputs', async () => {
        const { record } = inserted();
        const tensors = randomParameters(record);
        const adapter = join(folder, `${fixture.name}.safetensors`);
        await writeAdapter(adapter, record, tensors);
        const out = join(folder, fixture.name, 'merged.onnx');
        const report = await fold({ model: fixture.path, adapter, out, verify: true });

        expect(report.proof?.holds).toBe(true);
        expect(report.impossible).toEqual([]);
        expect(report.verification?.worst.relative).toBeLessThanOrEqual(report.verification?.tolerance ?? 0);
        // The comparison above means something only if the adapter does far more than rounding explains.
        const base = await verify(fixture.path, out);
        expect(base.worst.relative).toBeGreaterThan(4 * base.tolerance);
      });

      test('the unfolded model of a trained adapter is not the base', async () => {
        const { record } = inserted();
        const unfolded = readModel(fixture.path);
        attachAdapter(unfolded, record, randomParameters(record));
        const report = await verify(fixture.path, unfolded);
        expect(report.pass).toBe(false);
      });
    },
  );
});
