/** What depends on the choice alone: parameters of the chosen adapters, of the whole run or by row of the batch. */
import { fail } from '../../src/errors.js';
import { Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import type { Tensor } from '../../src/tensor.js';
import { type Dim, tensorType } from '../../src/types.js';
import type { AdapterRecord, AdapterSite } from '../adapter-record.js';
import type { Layer } from '../insert/wiring.js';
import type { RowLayout } from '../methods/contract/by-row.js';
import type { Method } from '../methods/contract/method.js';
import { resolveMethod } from '../methods/registry.js';
import type { Pass } from '../pass.js';
import { factorsAt, scaledRoles } from '../targets/serving.js';
import { claimName, valueNames } from '../value-names.js';
import { chosenOnly } from './gate.js';
import { byRow, layoutOf, type Rows } from './rows.js';
import { stackTensors, zerosLike } from './stack.js';

/** A trained adapter under the name it is chosen by. */
export interface NamedAdapter {
  readonly name: string;
  readonly record: AdapterRecord;
  /** By key, in the dtypes of the model. Tensors that several adapters have in common are one object. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** What one adapter has at a module, in the order of its entries. */
export type Layers = readonly { readonly method: string; readonly site: AdapterSite }[];

/** Adapters that agree in structure at a module. */
export interface Group {
  /** Indices among the adapters, ascending. */
  readonly members: readonly number[];
  /** By member. */
  readonly layers: readonly Layers[];
}

export interface ChoiceOptions {
  /** The index of the first adapter. */
  readonly offset: number;
  /** The batch axis, where every row has an adapter of its own. */
  readonly batch: Dim | undefined;
  /** Whether tensors stay the adapters' own, stacked in the graph, so that they can be trained. */
  readonly trainable: boolean;
  readonly methods: readonly Method[] | undefined;
}

/** One parameter of a group of adapters. */
interface Parameter {
  readonly role: string;
  readonly members: readonly number[];
  readonly sites: readonly AdapterSite[];
  readonly method: Method;
  /** Whether zeros stand behind the members' tensors, for whoever is none of them. */
  readonly zeros: boolean;
}

/** The input, and the values that depend on it alone: they are computed once, before everything else. */
export class Chooser {
  readonly input: Value;
  readonly #builder: Builder;
  readonly #taken: Set<string>;
  readonly #weights: Value[] = [];
  /** Initializers of trainable adapters, by adapter and key. */
  readonly #own = new Map<string, Value>();
  readonly #known = new Map<string, Value>();
  /** What ids are moved by, by members and size of the table. */
  readonly #offsets = new Map<string, Value>();
  #size: Value | undefined;

  constructor(
    readonly model: Model,
    input: string,
    readonly adapters: readonly NamedAdapter[],
    readonly options: ChoiceOptions,
  ) {
    const { batch } = options;
    this.#builder = new Builder(model, { provenance: 'adapter choice' });
    this.#taken = valueNames(model);
    const shape = batch === undefined ? [] : [batch];
    this.input = new Value({ name: claimName(input, this.#taken), type: tensorType('int64', shape) });
  }

  /** One layer per method of a group, its parameters those of the chosen member. */
  layers({ members, layers }: Group): Layer[] {
    const { offset, batch, methods } = this.options;
    const own = (layers[0] ?? []).map(({ method }) => resolveMethod(method, methods));
    const everyone = members.length === this.adapters.length + offset;
    // Zero factors add nothing: whoever has no adapter here needs no choice between two results.
    const zeros = !everyone && (layers[0] ?? []).every(({ site }, at) => vanishes(own[at], site));
    const chosen = everyone || zeros ? undefined : this.#isAmong(members);
    return (layers[0] ?? []).map(({ site }, at) => {
      const method = own[at] as Method;
      const sites = layers.map((member) => (member[at] as Layers[number]).site);
      const params = Object.fromEntries(
        Object.keys(site.params).map((role) => [role, this.#param({ role, members, sites, method, zeros })]),
      );
      const acting =
        batch !== undefined
          ? byRow(method, this.#rows(batch, members, chosen, zeros))
          : chosen === undefined
            ? method
            : chosenOnly(method, chosen);
      return { method: acting, config: site.config, params };
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

  /** Name of the initializer that holds a tensor of a trainable adapter; undefined for tensors that no formula reads. */
  nameOf(member: number, key: string): string | undefined {
    return this.#own.get(JSON.stringify([member, key]))?.name;
  }

  #rows(batch: Dim, members: readonly number[], chosen: Value | undefined, zeros: boolean): Rows {
    const { op } = this.#builder;
    this.#size ??= op.Shape(this.input);
    return {
      batch,
      size: this.#size,
      chosen:
        chosen === undefined
          ? undefined
          : this.#once(`rows ${chosen.id}`, () => op.Unsqueeze(chosen, [1, 2])),
      offset: (rows) =>
        // Known before any formula runs: `layers` has asked for the table of that size.
        this.#offsets.get(JSON.stringify([members, zeros, rows])) ??
        fail('E_INVALID_GRAPH', { message: `No adapter has a table of ${rows} rows` }),
    };
  }

  #param(parameter: Parameter): Value {
    const { role, members, sites, zeros } = parameter;
    const keys = sites.map(({ params }) => params[role]?.key ?? '');
    const id = JSON.stringify([members, keys, zeros]);
    return this.#once(id, () => this.#made(parameter, keys));
  }

  #made({ role, members, sites, method, zeros }: Parameter, keys: readonly string[]): Value {
    const { op } = this.#builder;
    const [site] = sites as [AdapterSite];
    const layout = this.#layout(method, site, role);
    const tensors = members.map((member, i) => this.#tensor(member, keys[i] ?? ''));
    const [first, ...others] = tensors as [Tensor, ...Tensor[]];
    // Frozen tensors that all have are no choice.
    const frozen = site.params[role]?.trainable === false;
    if ((layout === undefined || frozen) && !zeros && others.every((tensor) => tensor === first))
      return this.#sharedBy(members, keys, first);
    if (layout === 'common')
      return fail('E_UNSUPPORTED', {
        message: `The adapters have different frozen tensors '${role}', of which ${method.id} takes one for all rows of a batch`,
        where: site.path,
        remedy: 'Train them with one seed, or choose the adapter by run instead (--by run)',
      });
    const lead = layout === 'table' ? [] : layout === 'vector' ? [1, 1] : [1];
    const all = zeros ? [...tensors, zerosLike(first)] : tensors;
    const stacked = this.options.trainable
      ? this.#stackedInGraph(all, members, keys, lead)
      : this.#stackedTensors(all, keys, lead);
    const index = this.#indexAmong(members, zeros);
    if (layout !== 'table') return op.Gather(stacked, index, { axis: 0 });
    const [rows = 0] = first.dims;
    this.#offsets.set(
      JSON.stringify([members, zeros, rows]),
      this.#once(`offset ${index.id} ${rows}`, () => op.Unsqueeze(op.Mul(index, rows), [1])),
    );
    return stacked;
  }

  /** Tensors as one weight, each with axes of size 1 in front. */
  #stackedTensors(tensors: readonly Tensor[], keys: readonly string[], lead: readonly number[]): Value {
    const stacked = stackTensors(tensors);
    const [first = 1, ...rest] = [...lead, ...stacked.dims.slice(1)];
    return this.#weight(keys[0] ?? '', { ...stacked, dims: [first * tensors.length, ...rest] });
  }

  /** The same of weights that stay apart; what is behind those of the members is constant. */
  #stackedInGraph(
    tensors: readonly Tensor[],
    members: readonly number[],
    keys: readonly string[],
    lead: readonly number[],
  ): Value {
    const { op } = this.#builder;
    const parts = tensors.map((tensor, i) => {
      const member = members[i];
      if (member === undefined)
        return this.#weight('no_adapter', { ...tensor, dims: [...lead, ...tensor.dims] });
      const own = this.#ownWeight(member, keys[i] ?? '', tensor);
      return lead.length === 0 ? own : op.Unsqueeze(own, [...lead.keys()]);
    });
    return parts.length === 1 ? (parts[0] as Value) : op.Concat(parts, { axis: 0 });
  }

  /** A frozen tensor that all members have. */
  #sharedBy(members: readonly number[], keys: readonly string[], tensor: Tensor): Value {
    const [member = 0, ...others] = members;
    if (!this.options.trainable) return this.#weight(keys[0] ?? '', tensor);
    const value = this.#ownWeight(member, keys[0] ?? '', tensor);
    for (const [i, other] of others.entries())
      this.#own.set(JSON.stringify([other, keys[i + 1] ?? '']), value);
    return value;
  }

  #ownWeight(member: number, key: string, tensor: Tensor): Value {
    const id = JSON.stringify([member, key]);
    const value = this.#own.get(id) ?? this.#weight(`${this.adapters[member]?.name}.${key}`, tensor);
    this.#own.set(id, value);
    return value;
  }

  #layout(method: Method, { kind, path }: AdapterSite, role: string): RowLayout | undefined {
    return this.options.batch === undefined
      ? undefined
      : layoutOf(method, kind as keyof Method['sites'], role, path);
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

  /** Place of the chosen adapter among the members; behind them, or 0, where it is none of them. */
  #indexAmong(members: readonly number[], behind: boolean): Value {
    const other = behind ? members.length : 0;
    return this.#looked('int64', (adapter) => {
      const place = members.indexOf(adapter);
      return place < 0 ? other : place;
    });
  }

  #isAmong(members: readonly number[]): Value {
    return this.#looked('bool', (adapter) => (members.includes(adapter) ? 1 : 0));
  }

  /** A table of numbers by index, looked up at the input. An index beyond it is an error of the runtime. */
  #looked(dtype: 'int64' | 'bool', of: (adapter: number) => number): Value {
    const { offset } = this.options;
    const count = this.adapters.length + offset;
    const numbers = Array.from({ length: count }, (_, index) => of(index - offset));
    return this.#once(`${dtype} ${numbers.join(' ')}`, () => {
      const table = this.#weight('adapter_table', tensorOf(dtype, [count], numbers));
      return this.#builder.op.Gather(table, this.input, { axis: 0 });
    });
  }

  #once(id: string, make: () => Value): Value {
    const value = this.#known.get(id) ?? make();
    this.#known.set(id, value);
    return value;
  }
}

/** Whether zeros in the place of its parameters leave the site as it was: nothing but what the scale multiplies. */
function vanishes(method: Method | undefined, site: AdapterSite): boolean {
  const factors = factorsAt(method, site);
  if (factors === undefined) return false;
  const own = [factors.left, ...scaledRoles(factors)];
  return Object.keys(site.params).every((role) => own.includes(role));
}
