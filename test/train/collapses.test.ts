/** Every shipped method with training-only structure: what is saved computes what was trained, without that structure. */
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readAdapterRecord } from '../../passes/adapter-record.js';
import { attachAdapter } from '../../passes/insert/insert.js';
import type { Method } from '../../passes/methods/contract/method.js';
import { METHODS } from '../../passes/methods/registry.js';
import { collapseAdapter, storedElements } from '../../runtime/collapse.js';
import { insert } from '../../runtime/library/insert.js';
import { verify } from '../../runtime/verify.js';
import type { Model } from '../../src/model.js';
import { readModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { randomParameters } from '../helpers/adapters.js';
import { fixturePath } from '../helpers/fixtures.js';
import { everywhere } from '../methods/battery.js';

/** A model with the method in the first configuration that collapses: its own, or with one switch turned. */
async function collapsing(path: string, method: Method): Promise<Model | undefined> {
  const { properties = {} } = z.toJSONSchema(method.config, { io: 'input' });
  const switches = Object.entries(properties).flatMap(([name, schema]) =>
    typeof schema === 'object' && schema.type === 'boolean' ? [{ [name]: schema.default !== true }] : [],
  );
  for (const turned of [{}, ...switches]) {
    const model = readModel(path);
    const entry = everywhere(model, method);
    if (entry === undefined) return undefined;
    await insert(model, { ...entry, config: { ...entry.config, ...turned } });
    if (readAdapterRecord(model).formulas !== undefined) return model;
  }
  return undefined;
}

const methods = METHODS.filter(({ sites }) =>
  Object.values(sites).some(({ collapse }) => collapse !== undefined),
);

describe.each(methods.map((method) => [method.id, method] as const))('%s', (_id, method) => {
  it.each(['bert', 'gpt2'])('is saved without training-only structure on %s', async (architecture) => {
    const path = fixturePath('models', `${architecture}.ts.dynamic.onnx`);
    const model = await collapsing(path, method);
    expect(model).toBeDefined();
    if (model === undefined) return;
    const record = readAdapterRecord(model);
    const tensors = randomParameters(record, model);
    const trained = readModel(path);
    attachAdapter(trained, record, tensors);

    const saved = await collapseAdapter({ record, tensors }, model);
    expect(saved.record.sites.every(({ collapse }) => collapse === undefined)).toBe(true);
    expect(storedElements(saved.record)).not.toBe(storedElements(record));
    const served = readModel(path);
    const values = [...saved.tensors].map(
      ([key, { dtype, dims, data }]) => [key, tensorOfBytes(dtype, dims, data)] as const,
    );
    attachAdapter(served, saved.record, new Map(values));
    const report = await verify(trained, served);
    expect(report.worst.relative).toBeLessThanOrEqual(report.tolerance);
  });
});
