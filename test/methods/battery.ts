/**
 * The battery of methods × exported models: identity at insertion where the method promises it, random parameters change
 * the output, the fold equals the unfolded graph, and the merged file is the base's graph. No branch on the method.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { attachAdapter, type InsertReport } from '../../passes/insert/insert.js';
import { type InsertEntry, planInsert } from '../../passes/insert/plan.js';
import { type Method, targetKindsOf } from '../../passes/methods/contract/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import { findSites } from '../../passes/sites/index.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { modelTensors, readAdapter, writeAdapter } from '../../runtime/adapter-file.js';
import { fold } from '../../runtime/fold/fold.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import { PeftCompileError } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { randomParameters } from '../helpers/adapters.js';
import { type ModelFixture, modelFixtures } from '../helpers/fixtures.js';

/** Settings by name, for whichever method has them. Alpha is not the rank, so a forgotten scale shows. */
const SETTINGS: Readonly<Record<string, unknown>> = {
  rank: 3,
  alpha: 5,
  size: 8,
  length: 3,
  ratio: 0.2,
  /** Block sizes that divide every width of the fixtures. */
  vectorLength: 4,
  vectors: 7,
};

/** The settings that a method knows. */
export function testSettings({ config }: Method): Record<string, unknown> {
  const { properties = {} } = z.toJSONSchema(config, { io: 'input' });
  return Object.fromEntries(Object.entries(SETTINGS).filter(([name]) => Object.hasOwn(properties, name)));
}

/** A method at every site of a model that it takes; undefined where there is none. */
export function everywhere(model: Model, method: Method): InsertEntry | undefined {
  const kinds = targetKindsOf(method);
  const sites = findSites(model).filter(
    (site) => kinds.includes(site.kind) && (site.kind !== 'linear' || site.packedIn === undefined),
  );
  if (sites.length === 0) return undefined;
  const entry = {
    method,
    config: testSettings(method),
    targeting: { targets: [...new Set(sites.map(modulePath))] },
  };
  try {
    planInsert(model, [entry]);
    return entry;
  } catch (error) {
    if (error instanceof PeftCompileError && error.code === 'E_UNSUPPORTED') return undefined;
    throw error;
  }
}

/** Part `index` of `count` of the battery: one file each, so that they run beside each other. */
export function battery(index: number, count: number): void {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'battery-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const methods = METHODS.filter((_, i) => i % count === index);
  describe.each(methods.map((method) => [method.id, method] as const))('%s', (_id, method) => {
    const fixtures = modelFixtures().filter(
      (fixture) => everywhere(readModel(fixture.path), method) !== undefined,
    );
    test('has models that it fits', () => expect(fixtures).not.toEqual([]));

    describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))('on %s', (_name, fixture) => {
      test('starts as it says', async () => {
        const { model } = await inserted(fixture, method);
        const report = await verify(fixture.path, model);
        // A start beside the base may be nearer to it than half precision shows.
        if (method.startsAsBase || fixture.dtype === 'float32') expect(report.pass).toBe(method.startsAsBase);
      });

      test('folds to the same graph with the same outputs', async () => {
        const { record, model } = await inserted(fixture, method);
        const adapter = join(folder, `${method.id}.${fixture.name}.safetensors`);
        // A base that was not folded at all must fail the comparison below, and not narrowly: half precision hides what
        // small parameters do.
        let effect = 0;
        for (const [draw, std] of [0.3, 1, 3, 1, 3].entries()) {
          if (effect > 1.5) break;
          const random = randomParameters(record, model, { seed: draw + 1, std });
          await writeAdapter(adapter, record, random, { force: true });
          const unfolded = readModel(fixture.path);
          attachAdapter(unfolded, record, await modelTensors(await readAdapter(adapter)));
          const { worst, tolerance } = await verify(fixture.path, unfolded);
          effect = worst.relative / tolerance;
        }
        expect(effect).toBeGreaterThan(1.5);
        const plan = await fold({ model: fixture.path, adapter });

        const out = join(folder, method.id, fixture.name, 'merged.onnx');
        if (plan.impossible.length > 0)
          await expect(fold({ model: fixture.path, adapter, out })).rejects.toMatchObject({
            code: 'E_UNSUPPORTED',
            message: expect.stringContaining(plan.impossible[0]?.reason ?? ''),
          });
        if (plan.tensors.length === 0) return;
        const report = await fold({ model: fixture.path, adapter, out, verify: true, keep: true });
        expect(report.proof?.holds).toBe(true);
        expect(report.verification?.worst.relative).toBeLessThanOrEqual(report.verification?.tolerance ?? 0);
      });
    });
  });
}

async function inserted(fixture: ModelFixture, method: Method): Promise<InsertReport & { model: Model }> {
  const model = readModel(fixture.path);
  const entry = everywhere(model, method);
  if (entry === undefined) throw new Error(`${method.id} does not fit ${fixture.name}`);
  const report = await insert(model, { ...entry, run: { validate: 'edit' } });
  return { ...report, model };
}
