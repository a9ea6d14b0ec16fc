/**
 * Several trained adapters in one inference graph, chosen by an input. Adapters that agree in structure at a module share
 * its formula: their tensors are stacked on a new first axis, and a Gather takes those of the chosen one. Adapters of
 * other structure are layers of their own, whose replaced values count where they are chosen.
 */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { didYouMean } from '../../src/nearest.js';
import { sortTopologically } from '../../src/order.js';
import type { Dim } from '../../src/types.js';
import { type AdapterSite, hasAdapterRecord, writeAdapterRecord } from '../adapter-record.js';
import { recordTogether, refuseTogether } from '../adapters-together.js';
import { stripDropout } from '../dropout.js';
import { placePass } from '../insert/insert.js';
import type { Method } from '../methods/contract/method.js';
import { type RunOptions, runPasses } from '../runner.js';
import { findSites } from '../sites/index.js';
import { openSites } from '../sites/opened.js';
import type { Site } from '../sites/site.js';
import { modulePath } from '../sites/targeting.js';
import { Chooser, type Group, type Layers, type NamedAdapter } from './chooser.js';
import { batchOf } from './rows.js';

export type { NamedAdapter } from './chooser.js';

/** Metadata of combined models: the input and the names by index, as JSON. */
export const COMBINED_METADATA_KEY = 'peft_compile.adapters';

/** The name of the entry that leaves the base as it is. */
export const NO_ADAPTER = 'none';

/** Whether a run has one adapter, or every row of its batch one of its own. */
export type CombineBy = 'run' | 'row';

export const COMBINE_BY: readonly CombineBy[] = ['run', 'row'];

export interface CombineSettings {
  /** Name of the input. Default `adapter`. */
  readonly input?: string;
  /** `run`: the input is an int64 scalar. `row`: it is int64 [batch]. Default `run`. */
  readonly by?: CombineBy;
  /** Whether index 0 is the base without any adapter. Default true. */
  readonly none?: boolean;
  /**
   * By row only: the adapters' tensors stay tensors of their own, and the model holds a record of them all, so that `emit`
   * and `train` train them together, every row of a batch the adapter that the input names. Default false.
   */
  readonly trainable?: boolean;
  /** Methods of one's own that the records may name. */
  readonly methods?: readonly Method[];
  readonly paths?: ReadonlyMap<string, string>;
  readonly run?: RunOptions;
}

export interface CombineReport {
  readonly input: string;
  readonly by: CombineBy;
  /** What each value of the input chooses, by index. */
  readonly names: readonly string[];
  /** Modules with an adapter. */
  readonly modules: number;
  /** Modules at which adapters differ in structure: all of theirs are computed, whichever is chosen. */
  readonly separate: number;
}

/**
 * Puts adapters into their base model, in place. Throws E_NO_MATCH for a module that the model lacks, E_USAGE for names
 * that do not fit, E_UNSUPPORTED where adapters that add to the sequence are to be one choice among others, and by row for
 * methods that have no such form.
 */
export function combineAdapters(
  model: Model,
  adapters: readonly NamedAdapter[],
  {
    input = 'adapter',
    by = 'run',
    none = true,
    trainable = false,
    methods,
    paths,
    run = {},
  }: CombineSettings = {},
): CombineReport {
  checkNames(adapters, none);
  for (const { name, record } of adapters) refuseTogether(record, name);
  if (trainable && by !== 'row')
    fail('E_USAGE', {
      message: 'Adapters train together by row of the batch',
      remedy: "Choose by row: --by row (by: 'row')",
    });
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      remedy: 'Pass the base model that the adapters were trained on',
    });
  sortTopologically(model.graph);
  openSites(
    model,
    adapters.flatMap(({ record }) => record.sites.map(({ kind }) => kind)),
  );
  const names = [...(none ? [NO_ADAPTER] : []), ...adapters.map(({ name }) => name)];
  const batch: Dim | undefined = by === 'row' ? batchOf(model) : undefined;
  const chooser = new Chooser(model, input, adapters, {
    offset: names.length - adapters.length,
    batch,
    trainable,
    methods,
  });
  const modules = modulesOf(adapters, findSites(model, paths === undefined ? {} : { paths }));
  const placements = modules.flatMap(({ sites, groups }) => {
    const layers = groups.flatMap((group) => chooser.layers(group));
    return sites.flatMap((site) => layers.map((layer, entry) => ({ entry, site, layer })));
  });
  runPasses(model, [chooser.pass(), placePass('combine adapters', placements)], run);
  if (trainable)
    writeAdapterRecord(
      model,
      recordTogether(adapters, (member, key) => chooser.nameOf(member, key)),
    );
  else stripDropout(model);
  model.metadata.set(
    COMBINED_METADATA_KEY,
    JSON.stringify({ version: 1, input: chooser.input.name, by, names }),
  );
  return {
    input: chooser.input.name ?? input,
    by,
    names,
    modules: modules.length,
    separate: modules.filter(({ groups }) => groups.length > 1).length,
  };
}

function checkNames(adapters: readonly NamedAdapter[], none: boolean): void {
  const names = adapters.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    fail('E_USAGE', { message: `Two adapters are named '${twice}'`, remedy: 'Give each a name of its own' });
  if (none && names.includes(NO_ADAPTER))
    fail('E_USAGE', {
      message: `'${NO_ADAPTER}' is the name of the base without adapter`,
      remedy: 'Name the adapter otherwise, or leave that entry out with none: false (--no-none)',
    });
  if (names.length < (none ? 1 : 2))
    fail('E_USAGE', {
      message: 'There is nothing to choose from',
      remedy: 'Name several adapters; one alone goes into a model with emit --target adapted',
    });
}

interface Module {
  /** All calls. */
  readonly sites: readonly Site[];
  readonly groups: readonly Group[];
}

function modulesOf(adapters: readonly NamedAdapter[], sites: readonly Site[]): Module[] {
  const byModule = new Map<string, Map<number, AdapterSite[]>>();
  for (const [index, { record }] of adapters.entries())
    for (const site of record.sites) {
      const key = `${site.kind} ${site.path}`;
      const byAdapter = byModule.get(key) ?? new Map<number, AdapterSite[]>();
      byModule.set(key, byAdapter);
      byAdapter.set(index, [...(byAdapter.get(index) ?? []), site]);
    }
  return [...byModule.values()].map((byAdapter) => {
    const [[index, [first]]] = [...byAdapter] as [[number, [AdapterSite]]];
    const calls = sites.filter((site) => site.kind === first.kind && modulePath(site) === first.path);
    if (calls.length === 0)
      fail('E_NO_MATCH', {
        message: `The model has no module '${first.path}', which the adapter '${adapters[index]?.name}' was trained on`,
        remedy: didYouMean(first.path, sites.filter(({ kind }) => kind === first.kind).map(modulePath)),
      });
    return { sites: calls, groups: groupsOf(adapters, byAdapter) };
  });
}

function groupsOf(
  adapters: readonly NamedAdapter[],
  byAdapter: ReadonlyMap<number, readonly AdapterSite[]>,
): Group[] {
  const groups = new Map<string, { members: number[]; layers: Layers[] }>();
  for (const [index, sites] of byAdapter) {
    const layers = [...sites]
      .sort((a, b) => a.entry - b.entry)
      .map((site) => ({ method: adapters[index]?.record.entries[site.entry]?.method ?? '', site }));
    const structure = JSON.stringify(layers.map(structureOf));
    const group = groups.get(structure) ?? { members: [], layers: [] };
    groups.set(structure, group);
    group.members.push(index);
    group.layers.push(layers);
  }
  return [...groups.values()];
}

/** All that a formula depends on but the numbers of the parameters. */
function structureOf({ method, site: { config, params } }: Layers[number]): unknown {
  return [
    method,
    sorted(config),
    Object.entries(sorted(params)).map(([role, { shape, dtype }]) => [role, shape, dtype]),
  ];
}

function sorted<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}
