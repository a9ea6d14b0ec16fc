/** A fold formula while it is built: fold formulas of methods over the stored tensors of sites, as a model of their own. */
import { Graph, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { type DType, isFloat, tensorType } from '../../src/types.js';
import type { AdapterParam, AdapterSite } from '../adapter-record.js';
import type { AnyFold } from '../methods/contract/method.js';
import { dimsOf, storedOf } from '../sites/kinds/index.js';
import type { StoredValuesOf } from '../sites/kinds/kind.js';
import { payloadOf } from '../sites/payload.js';
import type { Site } from '../sites/site.js';

/** Opset of fold formulas: old enough for every runtime, new enough for one form of every op. */
const FORMULA_OPSET = 18;
const FORMULA_IR = 8;

/** What feeds an input of a fold formula besides the tensor that changes: a parameter, or another stored tensor. */
export type FoldInput = { readonly param: AdapterParam } | { readonly base: Value };

/** A method at a site, with its parameters as recorded. */
export interface FoldLayer {
  readonly recorded: AdapterSite;
  readonly fold: AnyFold;
}

/** Inputs are added as they are asked for; `finish` drops those that the output does not need. */
export class FoldFormula {
  readonly model = new Model(new Graph());
  readonly builder: Builder;
  readonly inputs = new Map<string, FoldInput>();
  readonly #params = new Map<string, Value>();

  constructor(
    readonly site: Site,
    readonly dtype: 'float32' | 'float64',
  ) {
    this.model.irVersion = FORMULA_IR;
    this.model.opsets.set('', FORMULA_OPSET);
    this.builder = new Builder(this.model);
  }

  input(name: string, shape: readonly number[], dtype: DType = this.dtype): Value {
    return this.model.graph.addInput(new Value({ name, type: tensorType(dtype, shape) }));
  }

  /** The stored tensors of a site as formulas see them; `given` holds those that are at hand already, by tensor. */
  stored(site: Site = this.site, given: ReadonlyMap<Value, Value> = new Map()): StoredValuesOf {
    const { op } = this.builder;
    return Object.fromEntries(
      Object.entries(storedOf(site)).map(([slot, stored]) => {
        if (stored.packed !== undefined) return [slot, this.#base(stored.value, stored.packed)];
        const tensor = given.get(stored.value) ?? this.#base(stored.value);
        return [slot, stored.read(op, tensor)];
      }),
    );
  }

  #base(value: Value, dims = payloadOf(value)?.dims ?? []): Value {
    const name = this.#free('base');
    this.inputs.set(name, { base: value });
    return this.input(name, dims);
  }

  layers(stored: StoredValuesOf, layers: readonly FoldLayer[], site: Site = this.site): StoredValuesOf {
    let current = stored;
    for (const layer of layers) {
      const folded = this.layer(current, layer, site);
      if (typeof folded !== 'string') current = { ...current, ...folded };
    }
    return current;
  }

  /** What one method makes of the tensors, or why it does not fold. */
  layer(
    stored: StoredValuesOf,
    { recorded, fold }: FoldLayer,
    site: Site = this.site,
  ): StoredValuesOf | string {
    const folded = fold(this.builder.op, stored, this.params(recorded), recorded.config, dimsOf(site));
    return typeof folded.impossible === 'string' ? folded.impossible : (folded as StoredValuesOf);
  }

  /** Parameters of a site as inputs. */
  params({ params }: AdapterSite): Readonly<Record<string, Value>> {
    return Object.fromEntries(
      Object.entries(params).map(([role, param]) => [role, this.#param(role, param)]),
    );
  }

  /** Depends on the methods and sites alone: formulas of equal text share a session. */
  #free(wanted: string): string {
    let name = wanted;
    for (let n = 2; name === 'w' || this.inputs.has(name); n++) name = `${wanted}_${n}`;
    return name;
  }

  #param(role: string, param: AdapterParam): Value {
    const known = this.#params.get(param.key);
    if (known !== undefined) return known;
    const name = this.#free(role);
    this.inputs.set(name, { param });
    const value = this.input(name, param.shape, isFloat(param.dtype) ? this.dtype : param.dtype);
    this.#params.set(param.key, value);
    return value;
  }

  /** The finished formula of one output; inputs and nodes that it does not need are gone. */
  finish(output: Value): Model {
    const { model, builder, inputs } = this;
    const { graph } = model;
    const needed = new Set<Value>([output]);
    for (const node of [...builder.nodes].reverse())
      if (node.outputs.some((value) => value !== null && needed.has(value)))
        for (const input of node.inputs) if (input !== null) needed.add(input);
    for (const value of builder.initializers) if (needed.has(value)) graph.addInitializer(value);
    for (const node of builder.nodes)
      if (node.outputs.some((value) => value !== null && needed.has(value))) graph.append(node);
    const kept = graph.inputs.filter((input) => needed.has(input));
    for (const input of graph.inputs) if (!needed.has(input)) inputs.delete(input.name ?? '');
    graph.inputs.splice(0, graph.inputs.length, ...kept);
    graph.addOutput('folded', output);
    return model;
  }
}
