/** Penalties of methods: regularisation of the parameters, a scalar of the training graphs alone. */
import type { Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type AdapterRecord, type AdapterSite, trainingMethod } from '../adapter-record.js';
import { type AnySiteRules, type Method, rulesFor } from '../methods/contract/method.js';
import { resolveMethod } from '../methods/registry.js';
import type { SiteKind } from '../sites/site.js';
import { appender } from './append.js';
import type { Trainable } from './trainables.js';

interface PenalisedSite {
  readonly site: AdapterSite;
  readonly penalty: NonNullable<AnySiteRules['penalty']>;
}

/**
 * Sum of the penalties of all sites, float32, of the parameters as they are trained; undefined where there are none.
 * Throws E_NO_MATCH when a method that trains is neither shipped nor given.
 */
export function addPenalty(
  model: Model,
  record: AdapterRecord,
  lifted: readonly Trainable[],
  own: readonly Method[],
): Value | undefined {
  const b = new Builder(model, { provenance: 'penalty' });
  const { op } = b;
  const known = new Map<string, Value>();
  for (const { name, value } of namedTensors(model)) known.set(name, value);
  for (const { param, input } of lifted) known.set(param.name, input);
  const floats = new Map<Value, Value>();
  const float32 = (value: Value): Value => {
    const { type } = value;
    if (type?.kind !== 'tensor' || type.dtype === 'float32' || type.dtype.startsWith('int')) return value;
    const cast = floats.get(value) ?? op.Cast(value, { to: 'float32' });
    floats.set(value, cast);
    return cast;
  };
  const terms = record.entries.flatMap((entry, index): Value[] => {
    if (!trainingMethod(entry)) return [];
    const sites = penalised(record, index, resolveMethod(entry.method, own));
    return sites.flatMap(({ site, penalty }): Value[] => {
      const params = Object.fromEntries(
        Object.entries(site.params).map(([role, { name }]) => [role, float32(known.get(name) as Value)]),
      );
      const term = penalty(op, params, site.config, sites.length);
      return term === undefined ? [] : [term];
    });
  });
  if (terms.length === 0) return undefined;
  const total = terms.reduce((sum, term) => op.Add(sum, term));
  appender(model, b, 'penalty')();
  return total;
}

function penalised(record: AdapterRecord, entry: number, method: Method): PenalisedSite[] {
  return record.sites.flatMap((site): PenalisedSite[] => {
    if (site.entry !== entry) return [];
    const { penalty } = rulesFor(method, site.kind as SiteKind, site.path);
    return penalty === undefined ? [] : [{ site, penalty }];
  });
}

function namedTensors({ graph }: Model): { readonly name: string; readonly value: Value }[] {
  return [...graph.inputs, ...graph.initializers].flatMap((value) =>
    value.name === undefined ? [] : [{ name: value.name, value }],
  );
}
