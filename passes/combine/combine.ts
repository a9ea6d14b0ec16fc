/**
 * Several trained adapters in one inference graph, chosen by an input. Adapters that agree in structure at a module share
 * its formula: their tensors are stacked on a new first axis, and a Gather takes those of the chosen one. Adapters of
 * other structure are layers of their own, whose replaced values count where they are chosen.
 */
import { fail } from '../../src/errors.js';
import { Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { didYouMean } from '../../src/nearest.js';
import { Builder } from '../../src/ops/builder.js';
import { sortTopologically } from '../../src/order.js';
import type { Tensor } from '../../src/tensor.js';
import { tensorType } from '../../src/types.js';
import { type AdapterRecord, type AdapterSite, hasAdapterRecord } from '../adapter-record.js';
import { stripDropout } from '../dropout.js';
import { placePass } from '../insert/insert.js';
import type { Layer } from '../insert/wiring.js';
import type { Method } from '../methods/contract/method.js';
import { resolveMethod } from '../methods/registry.js';
import type { Pass } from '../pass.js';
import { type RunOptions, runPasses } from '../runner.js';
import { findSites } from '../sites/index.js';
import type { Site } from '../sites/site.js';
import { modulePath } from '../sites/targeting.js';
import { claimName, valueNames } from '../value-names.js';
import { chosenOnly } from './gate.js';
import { stackTensors } from './stack.js';

/** Metadata of combined models: the input and the names by index, as JSON. */
export const COMBINED_METADATA_KEY = 'peft_compile.adapters';

/** The name of the entry that leaves the base as it is. */
export const NO_ADAPTER = 'none';

/** A trained adapter under the name it is chosen by. */
export interface NamedAdapter {
  readonly name: string;
  readonly record: AdapterRecord;
  /** By key, in the dtypes of the model. Tensors that several adapters have in common are one object. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

export interface CombineSettings {
  /** Name of the input, an int64 scalar. Default `adapter`. */
  readonly input?: string;
  /** Whether index 0 is the base without any adapter. Default true. */
  readonly none?: boolean;
  /** Methods of one's own that the records may name. */
  readonly methods?: readonly Method[];
  readonly paths?: ReadonlyMap<string, string>;
  readonly run?: RunOptions;
}

export interface CombineReport {
  readonly input: string;
  /** What each value of the input chooses, by index. */
  readonly names: readonly string[];
  /** Modules with an adapter. */
  readonly modules: number;
  /** Modules at which adapters differ in structure: all of theirs are computed, whichever is chosen. */
  readonly separate: number;
}

/**
 * Puts adapters into their base model, in place. Throws E_NO_MATCH for a module that the model lacks, E_USAGE for names
 * that do not fit, E_UNSUPPORTED where adapters that add to the sequence are to be one choice among others.
 */
export function combineAdapters(
  model: Model,
  adapters: readonly NamedAdapter[],
  { input = 'adapter', none = true, methods, paths, run = {} }: CombineSettings = {},
): CombineReport {
  checkNames(adapters, none);
  if (hasAdapterRecord(model))
    fail('E_UNSUPPORTED', {
      message: 'The model already holds an adapter',
      remedy: 'Pass the base model that the adapters were trained on',
    });
  sortTopologically(model.graph);
  const names = [...(none ? [NO_ADAPTER] : []), ...adapters.map(({ name }) => name)];
  const chooser = new Chooser(model, input, adapters, names.length - adapters.length);
  const modules = modulesOf(adapters, findSites(model, paths === undefined ? {} : { paths }));
  const placements = modules.flatMap(({ sites, groups }) => {
    const layers = groups.flatMap((group) => chooser.layers(group, methods));
    return sites.flatMap((site) => layers.map((layer, entry) => ({ entry, site, layer })));
  });
  runPasses(model, [chooser.pass(), placePass('combine adapters', placements)], run);
  stripDropout(model);
  model.metadata.set(COMBINED_METADATA_KEY, JSON.stringify({ version: 1, input: chooser.input.name, names }));
  return {
    input: chooser.input.name ?? input,
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

/** What one adapter has at a module, in the order of its entries. */
type Layers = readonly { readonly method: string; readonly site: AdapterSite }[];

/** Adapters that agree in structure at a module. */
interface Group {
  /** Indices among the adapters, ascending. */
  readonly members: readonly number[];
  /** By member. */
  readonly layers: readonly Layers[];
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

/** The input, and the values that depend on it alone: they are computed once, before everything else. */
class Chooser {
  readonly input: Value;
  readonly #builder: Builder;
  readonly #taken: Set<string>;
  readonly #params = new Map<string, Value>();
  readonly #weights: Value[] = [];
  readonly #tables = new Map<string, Value>();

  /** `offset`: the index of the first adapter. */
  constructor(
    readonly model: Model,
    input: string,
    readonly adapters: readonly NamedAdapter[],
    readonly offset: number,
  ) {
    this.#builder = new Builder(model, { provenance: 'adapter choice' });
    this.#taken = valueNames(model);
    this.input = new Value({ name: claimName(input, this.#taken), type: tensorType('int64', []) });
  }

  /** One layer per method of a group, its parameters those of the chosen member. */
  layers({ members, layers }: Group, methods: readonly Method[] | undefined): Layer[] {
    const everyone = members.length === this.adapters.length + this.offset;
    const chosen = everyone ? undefined : this.#isAmong(members);
    return (layers[0] ?? []).map(({ method, site }, at) => {
      const own = resolveMethod(method, methods);
      const sites = layers.map((member) => (member[at] as Layers[number]).site);
      return {
        method: chosen === undefined ? own : chosenOnly(own, chosen),
        config: site.config,
        params: Object.fromEntries(
          Object.keys(site.params).map((role) => [role, this.#param(role, members, sites)]),
        ),
      };
    });
  }

  /** Adds the input and what was built. */
  pass(): Pass {
    const { model, input } = this;
    const built = this.#builder;
    const weights = this.#weights;
    return {
      name: 'choose adapter',
      summary: 'Take the parameters of the adapter that an input names',
      *run() {
        const [first] = model.graph.nodes();
        yield {
          label: 'choice of the adapter',
          graph: model.graph,
          addInputs: [input],
          addInitializers: [...built.initializers, ...weights],
          add: { nodes: built.nodes, at: first === undefined ? 'end' : { before: first } },
        };
      },
    };
  }

  #param(role: string, members: readonly number[], sites: readonly AdapterSite[]): Value {
    const keys = sites.map(({ params }) => params[role]?.key ?? '');
    const id = JSON.stringify([members, keys]);
    const known = this.#params.get(id);
    if (known !== undefined) return known;
    const tensors = members.map((member, i) => this.#tensor(member, keys[i] ?? ''));
    const [first, ...others] = tensors as [Tensor, ...Tensor[]];
    const common = others.every((tensor) => tensor === first);
    const weight = this.#weight(keys[0] ?? role, common ? first : stackTensors(tensors));
    const value = common ? weight : this.#builder.op.Gather(weight, this.#indexAmong(members), { axis: 0 });
    this.#params.set(id, value);
    return value;
  }

  #tensor(member: number, key: string): Tensor {
    const adapter = this.adapters[member] as NamedAdapter;
    return (
      adapter.tensors.get(key) ??
      fail('E_INVALID_DATA', {
        message: `The adapter '${adapter.name}' lacks tensor '${key}'`,
        remedy: 'Use the file that training wrote',
      })
    );
  }

  #weight(key: string, tensor: Tensor): Value {
    const type = tensorType(tensor.dtype, tensor.dims);
    const value = new Value({ name: claimName(key, this.#taken), type, tensor });
    this.#weights.push(value);
    return value;
  }

  /** Place of the chosen adapter among the members; 0 where it is none of them. */
  #indexAmong(members: readonly number[]): Value {
    return this.#looked('int64', (adapter) => Math.max(members.indexOf(adapter), 0));
  }

  #isAmong(members: readonly number[]): Value {
    return this.#looked('bool', (adapter) => (members.includes(adapter) ? 1 : 0));
  }

  /** A table of numbers by index, looked up at the input. An index beyond it is an error of the runtime. */
  #looked(dtype: 'int64' | 'bool', of: (adapter: number) => number): Value {
    const count = this.adapters.length + this.offset;
    const numbers = Array.from({ length: count }, (_, index) => of(index - this.offset));
    const id = `${dtype} ${numbers.join(' ')}`;
    const known = this.#tables.get(id);
    if (known !== undefined) return known;
    const table = this.#weight('adapter_table', tensorOf(dtype, [count], numbers));
    const value = this.#builder.op.Gather(table, this.input, { axis: 0 });
    this.#tables.set(id, value);
    return value;
  }
}
