/**
 * What every model must do, whoever exported it: its linears are found under torch's paths, methods insert and fold into
 * it, and a LoRA trains on it. What a model cannot do its description says (`limits`, `unfound`, `gaps`), with the error
 * that is then expected. Nothing here asks which model it has.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { insert } from '../../passes/insert/insert.js';
import { findSites } from '../../passes/sites/index.js';
import { opened } from '../../passes/sites/opened.js';
import { modulePath } from '../../passes/sites/targeting.js';
import type { HostTensor } from '../../runtime/host-tensor.js';
import { randomInputs } from '../../runtime/random-inputs.js';
import { SessionHost, type Tensors } from '../../runtime/session.js';
import { PeftCompileError } from '../../src/errors.js';
import { readModel } from '../../src/onnx/index.js';
import { checkAdapter, EFFECT, outputsOf } from './adapters.js';
import { type CheckedFixture, type Limit, storedInputs, storedTensors } from './fixtures.js';
import { type ModelRow, rowsPath, rowsText } from './rows.js';
import { checkSites } from './sites.js';
import { checkTraining } from './training.js';

/** Of the scale of a gradient; finite differences have what is left of the fourth derivative, and rounding of the loss. */
const GRADIENT = {
  torch: { float32: 1e-5, float16: 2e-2, bfloat16: 5e-2 },
  'finite differences': { float32: 5e-3, float16: 2e-1, bfloat16: 2e-1 },
} as const;

const dtypeOf = ({ dtype }: CheckedFixture): 'float32' | 'float16' | 'bfloat16' =>
  dtype === 'float16' || dtype === 'bfloat16' ? dtype : 'float32';

/** A method beside LoRA that folds at linears: it reads and replaces outputs where LoRA adds to them. */
const SECOND = 'ia3';
/** Methods for places that own no weight. They fold nowhere. */
const PLACES = [
  { kind: 'sublayer', method: 'pfeiffer', config: {}, field: 'blocks' },
  { kind: 'attention', method: 'prefix', config: { length: 3, positions: 'keep' }, field: 'prefixes' },
] as const;

/**
 * Declares the tests of a suite of models, and one that its rows are those of `docs/measured/models/<suite>.json`
 * (`-u` rewrites them).
 */
export function checkModels(suite: string, fixtures: readonly CheckedFixture[]): void {
  const rows: ModelRow[] = [];
  describe.each(fixtures.map((fixture) => [fixture.name, fixture] as const))('%s', (_name, fixture) => {
    checkModel(fixture, (row) => rows.push(row));
  });
  test(`rows of ${suite} in docs/measured/models`, async ({ skip }) => {
    const whole = rows.filter(({ lora, second, gradient }) =>
      [lora, second, gradient].every((one) => one !== undefined),
    );
    if (whole.length !== fixtures.length) skip('not everything was run');
    await expect(rowsText(suite, rows)).toMatchFileSnapshot(rowsPath(suite));
  });
}

/** Declares the tests of one model. `done` gets what was measured, after the last of them. */
export function checkModel(fixture: CheckedFixture, done: (row: ModelRow) => void = () => {}): void {
  const { path, limits = {}, gaps = {}, structure = {} } = fixture;
  const model = readModel(path);
  const sites = checkSites(model, fixture);
  const stored = storedTensors(fixture);
  const linears = fixture.lora?.modules ?? [
    ...new Set(
      sites.sites.filter((site) => site.kind === 'linear' && site.packedIn === undefined).map(modulePath),
    ),
  ];
  const paths = new Map(Object.entries(fixture.paths ?? {}));
  const lora = {
    paths,
    method: 'lora',
    config: { rank: fixture.lora?.rank ?? 2, alpha: fixture.lora?.alpha ?? 3 },
    targeting: { targets: [...linears] },
  };
  const batches = Array.from({ length: fixture.cases ?? 0 }, (_, i) =>
    storedInputs(fixture, stored, `case${i}`),
  );
  const random = () => randomInputs(readModel(path), { seed: 5, sizes: fixture.sizes ?? {} });
  const inputs = batches.every((batch) => batch !== undefined) && batches.length > 0 ? batches : [random()];
  const row: { -readonly [K in keyof ModelRow]: ModelRow[K] } = {
    name: fixture.name,
    folder: fixture.folder,
    architecture: fixture.architecture,
    exporter: fixture.exporter,
    opset: fixture.opset,
    dtype: fixture.dtype,
    found: sites.found,
    ...(fixture.modules === undefined ? {} : { exact: [sites.exact, fixture.modules.length] as const }),
    kinds: sites.kinds,
    gaps: [...reasonsOf(fixture, sites.absent)],
  };

  let host: SessionHost;
  let base: Tensors;
  beforeAll(async () => {
    host = new SessionHost();
    base = await outputsOf(host, path, inputs);
  });
  afterAll(async () => {
    await host.close();
    done(row);
  });

  test('its weights are sites under their paths', () => {
    expect(sites.wrong).toEqual([]);
    if (fixture.modules !== undefined)
      expect(sites.extra.filter((one) => fixture.extra?.[one] === undefined)).toEqual([]);
  });

  test('its structure is found', () => {
    for (const [kind, count] of Object.entries(structure)) {
      const found = sites.kinds[kind as keyof typeof structure] ?? 0;
      expect([kind, found]).toEqual([kind, gaps[kind as keyof typeof structure]?.found ?? count]);
    }
  });

  test('LoRA inserts and folds', () =>
    withinLimits([limits.insert, limits.fold], row, 'lora', async () => {
      const check = await checkAdapter(host, path, inputs, { ...lora, base });
      expect(check.proved).toBe(true);
      expect(check.effect).toBeGreaterThan(EFFECT * check.tolerance);
      expect(check.error).toBeLessThanOrEqual(check.tolerance);
      return check.error;
    }));

  test(`${SECOND} inserts and folds`, () =>
    withinLimits([limits.insert, limits.second, limits.fold], row, 'second', async () => {
      const check = await checkAdapter(host, path, inputs, {
        method: SECOND,
        base,
        paths,
        targeting: { targets: [...linears] },
      });
      expect(check.proved).toBe(true);
      expect(check.effect).toBeGreaterThan(EFFECT * check.tolerance);
      expect(check.error).toBeLessThanOrEqual(check.tolerance);
      return check.error;
    }));

  for (const { kind, method, config, field } of PLACES) {
    // What fused operators hide, insertion takes apart.
    const places = findSites(opened(readModel(path), [kind]), { paths }).filter((site) => site.kind === kind);
    test.skipIf(places.length === 0)(`${method} inserts at every ${kind}`, async () => {
      const targeting = { targets: [...new Set(places.map(modulePath))] };
      const check = await checkAdapter(host, path, inputs, {
        base,
        paths,
        method,
        config,
        targeting,
        folds: false,
      });
      expect(check.effect).toBeGreaterThan(EFFECT * check.tolerance);
      row[field] = true;
    });
  }

  test('a LoRA trains', () =>
    withinLimits([limits.insert, limits.train], row, 'gradient', async () => {
      const adapted = readModel(path);
      insert(adapted, lora);
      const batch = storedInputs(fixture, stored, 'train') ?? (inputs[0] as Tensors);
      const dims = await outputDims(host, path, batch);
      const check = await checkTraining(host, fixture, adapted, batch, stored, dims);
      row.against = check.against;
      const limit = GRADIENT[check.against][dtypeOf(fixture)];
      expect(check.gradient).toBeLessThanOrEqual(limit);
      expect(check.loss).toBeLessThanOrEqual(limit);
      expect(check.last).toBeLessThan(0.98 * check.first);
      return check.gradient;
    }));
}

/** Runs a check, or asserts that it fails as declared. Keeps the error, or the reason, in the row. */
async function withinLimits(
  limits: readonly (Limit | undefined)[],
  row: { lora?: number | string; second?: number | string; gradient?: number | string },
  field: 'lora' | 'second' | 'gradient',
  check: () => Promise<number>,
): Promise<void> {
  const limit = limits.find((one) => one !== undefined);
  if (limit === undefined) {
    row[field] = await check();
    return;
  }
  row[field] = limit.reason;
  const error = await check().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof PeftCompileError)) throw error ?? new Error('This works now: take the limit away');
  expect(error.code).toBe(limit.code);
  expect(error.message).toContain(limit.message);
  expect(error.remedy).toBeDefined();
}

function* reasonsOf(fixture: CheckedFixture, absent: readonly string[]): Iterable<string> {
  const { unfound = {}, extra = {}, gaps = {}, limits = {}, unexported = {} } = fixture;
  for (const [path, reason] of Object.entries({ ...unfound, ...extra })) yield `${path}: ${reason}`;
  for (const [what, { reason }] of Object.entries({ ...gaps, ...limits })) yield `${what}: ${reason}`;
  for (const path of absent) yield `${path}: the exporter folded a lookup of constant ids into its result`;
  for (const [exporter, reason] of Object.entries(unexported)) yield `no export by ${exporter}: ${reason}`;
}

/** Dims of the outputs for a batch, by name. */
async function outputDims(
  host: SessionHost,
  path: string,
  batch: Tensors,
): Promise<ReadonlyMap<string, readonly number[]>> {
  const outputs = await outputsOf(host, path, [batch]);
  const floats = Object.entries(outputs).filter(([, { dtype }]: [string, HostTensor]) => /float/.test(dtype));
  return new Map(floats.map(([name, { dims }]) => [name.slice(2), dims]));
}
