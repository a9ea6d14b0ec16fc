/** The same configuration selects the same modules as in peft 0.21, with the same rank and alpha. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { findWeightSites } from '../../passes/sites/index.js';
import { modulePath, selectSites, type Targeting } from '../../passes/sites/targeting.js';
import { readModel } from '../../src/onnx/index.js';
import { fixturePath, modelFixtures } from '../helpers/fixtures.js';

interface Case {
  readonly architecture: string;
  readonly config: {
    readonly target_modules: string | string[];
    readonly exclude_modules?: string | string[];
    readonly layers_to_transform?: number | number[];
    readonly layers_pattern?: string | string[];
    readonly rank_pattern?: Record<string, number>;
    readonly alpha_pattern?: Record<string, number>;
  };
  readonly modulesToSave: string[];
  readonly selected: readonly { readonly path: string; readonly rank: number; readonly alpha: number }[];
}

/** Drops the keys that are undefined. */
function present<T extends object>(record: T): T {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as T;
}

function targetingOf({ config, modulesToSave }: Case): Targeting {
  return present({
    targets: config.target_modules,
    exclude: config.exclude_modules,
    layers: config.layers_to_transform,
    layersPattern: config.layers_pattern,
    rankPattern: config.rank_pattern,
    alphaPattern: config.alpha_pattern,
    modulesToSave,
  }) as Targeting;
}

const cases = JSON.parse(readFileSync(fixturePath('peft-targeting.json'), 'utf8')) as Case[];

test.each(cases.map((one) => [`${one.architecture} ${JSON.stringify(one.config)}`, one] as const))(
  '%s',
  (_name, one) => {
    const exports = modelFixtures(
      ({ architecture, variant }) => architecture === one.architecture && variant === 'dynamic',
    );
    expect(exports.length).toBeGreaterThan(0);
    for (const { path } of exports) {
      const selected = selectSites(findWeightSites(readModel(path)), targetingOf(one)).map(
        ({ site, overrides }) => ({
          path: modulePath(site),
          rank: 8,
          alpha: 16,
          ...overrides,
        }),
      );
      selected.sort((a, b) => (a.path < b.path ? -1 : 1));
      expect(selected).toEqual(one.selected);
    }
  },
);
