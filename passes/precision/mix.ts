/**
 * Mixed precision: a float32 or half-precision training graph of which products and what lies between them compute in
 * float16 or bfloat16, and the rest in float32. It runs on the differentiated graph, so that no gradient rule knows of it.
 *
 * Every node is one or the other. Float32 are: the loss, operators of the table (`operators.ts`) and of the caller, nodes
 * with a constant that half precision cannot hold, and what is computed from neither weights nor features (masks,
 * positions, angles). In the backward pass a node that is no product takes the wider of what it reads. Casts stand where the
 * two meet. Weights that a half-precision node reads are stored so, trainables stay float32 and are cast.
 */
import { attr } from '../../src/attribute.js';
import { fail } from '../../src/errors.js';
import { type Node, Value } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { Builder } from '../../src/ops/builder.js';
import { allows, type Formal, formalAt, type OpSchema, schemaOf } from '../../src/ops/schema.js';
import { elementsOf, type Tensor } from '../../src/tensor.js';
import { DTYPE_CODES, type DType, isFloat } from '../../src/types.js';
import { dtypeOf } from '../../src/value-type.js';
import { numbersOf } from '../grad/scalars.js';
import { type HalfDType, LARGEST, limitOf, loweredTensor, SMALLEST } from './lowered-tensor.js';
import { ALWAYS_FLOAT32, PRODUCTS, SATURATING, SHAPES } from './operators.js';

export interface MixOptions {
  readonly dtype: HalfDType;
  /** Operators of ai.onnx that stay float32 besides those that always do: what a provider has no kernels for. */
  readonly float32?: ReadonlySet<string>;
  /** Nodes that stay float32: those of the loss. */
  readonly stays?: (node: Node) => boolean;
  /** Nodes of the forward pass; absent: all. */
  readonly forward?: ReadonlySet<Node>;
}

/**
 * Rewrites the main graph in place. Returns `results` in the dtypes that they had, for what is appended or put out.
 * Throws E_UNSUPPORTED for graphs with control flow.
 */
export function mixPrecision(model: Model, results: readonly Value[], options: MixOptions): Value[] {
  return new Mixer(model, options).run(results);
}

type Class = 'half' | 'float32';

class Mixer {
  readonly #model: Model;
  readonly #options: MixOptions;
  /** Dtypes that are decided here: half precision where the model has any, and else float32. */
  readonly #ours: ReadonlySet<DType>;
  /** Values of those dtypes, as the graph came. */
  readonly #before = new Map<Value, DType>();
  readonly #features = new Set<Value>();
  /** Values that may lie beyond the range of half precision. */
  readonly #wide = new Set<Value>();
  readonly #classes = new Map<Node, Class>();
  /** Frozen tensors that some half-precision node reads. */
  readonly #stored = new Set<Value>();
  readonly #made = new Map<string, Value>();

  constructor(model: Model, options: MixOptions) {
    this.#model = model;
    this.#options = options;
    const weights = [...model.graph.initializers].map(({ tensor }) => tensor?.dtype);
    const half = weights.some((dtype) => dtype === 'float16' || dtype === 'bfloat16');
    this.#ours = new Set<DType>(half ? ['float16', 'bfloat16'] : ['float32']);
  }

  run(results: readonly Value[]): Value[] {
    const { graph } = this.#model;
    const nodes = [...graph.nodes()];
    this.#refuseBodies(nodes);
    for (const value of [...graph.inputs, ...graph.initializers]) this.#note(value);
    for (const node of nodes) for (const output of node.outputs) this.#note(output);
    for (const node of nodes) this.#decide(node);
    for (const node of nodes) this.#rewrite(node);
    return results.map((value) => this.#restored(value));
  }

  #refuseBodies(nodes: readonly Node[]): void {
    const body = nodes.find((node) => node.subgraphs.length > 0);
    if (body !== undefined)
      fail('E_UNSUPPORTED', {
        message: `Mixed precision does not reach into the bodies of ${body.qualifiedOp}`,
        where: body.label,
        remedy: 'Train in float32, or fix the input that chooses the branch (--set)',
      });
  }

  #note(value: Value | null): void {
    const dtype = dtypeOf(value) ?? value?.tensor?.dtype;
    if (value !== null && dtype !== undefined && this.#ours.has(dtype)) this.#before.set(value, dtype);
    // An input of numbers (pixels, sound) is a feature.
    if (value === null || value.producer !== undefined || value.tensor !== undefined) return;
    if (dtype !== undefined && isFloat(dtype)) this.#features.add(value);
  }

  #isForward(node: Node): boolean {
    return this.#options.forward?.has(node) ?? true;
  }

  /** Settles class and dtypes of a node whose inputs are settled. */
  #decide(node: Node): void {
    const feature = !this.#isForward(node) || node.inputs.some((input, i) => this.#carries(node, input, i));
    const schema = schemaOf(node.domain, node.op, this.#model.opset(node.domain));
    const held = this.#classOf(node, schema, feature);
    this.#classes.set(node, held.class);
    if (held.class === 'half')
      for (const input of node.inputs)
        if (input?.tensor !== undefined && this.#before.has(input)) this.#stored.add(input);
    for (const [i, output] of node.outputs.entries()) {
      if (output === null) continue;
      if (feature) this.#features.add(output);
      if (held.wide || !feature) this.#wide.add(output);
      if (!this.#before.has(output)) continue;
      const fits = schema !== undefined && takes(schema, formalAt(schema.outputs, i), this.#options.dtype);
      setDType(output, held.class === 'half' && fits ? this.#options.dtype : 'float32');
    }
  }

  /** Whether an input brings features in: a feature itself, or a matrix of weights. */
  #carries(node: Node, input: Value | null, index: number): boolean {
    if (input === null) return false;
    if (this.#features.has(input)) return true;
    if (input.tensor === undefined || !this.#before.has(input)) return false;
    const looksUp = node.op === 'Gather' && index === 0;
    const matrix = input.tensor.dims.filter((dim) => dim > 1).length >= 2;
    return matrix && (looksUp || PRODUCTS.has(node.op));
  }

  #classOf(
    node: Node,
    schema: OpSchema | undefined,
    feature: boolean,
  ): { readonly class: Class; readonly wide: boolean } {
    const { dtype, stays, float32 } = this.#options;
    const float: { class: Class; wide: boolean } = { class: 'float32', wide: false };
    if (stays?.(node) === true || node.domain !== '' || schema === undefined || !feature) return float;
    if (ALWAYS_FLOAT32.has(node.op) || float32?.has(node.op) === true) return float;
    // Integers become floats exactly or not at all; truth values fit anywhere.
    if (node.op === 'Cast') {
      const from = dtypeOf(node.input(0));
      return from === 'bool' || (from !== undefined && isFloat(from))
        ? { class: 'half', wide: false }
        : float;
    }
    const formals = [
      ...node.inputs.map((value, i) => ({ value, formal: formalAt(schema.inputs, i) })),
      ...node.outputs.map((value, i) => ({ value, formal: formalAt(schema.outputs, i) })),
    ].filter(({ value }) => value !== null && this.#before.has(value));
    if (!formals.some(({ formal }) => takes(schema, formal, dtype))) return float;
    const fit = node.inputs.map((input) => this.#fit(input));
    if (fit.includes('small')) return float;
    if (fit.includes('large') && !SATURATING.has(node.op)) return { class: 'float32', wide: true };
    const wider =
      !this.#isForward(node) &&
      !PRODUCTS.has(node.op) &&
      node.inputs.some(
        (input) => input?.producer !== undefined && this.#before.has(input) && dtypeOf(input) === 'float32',
      );
    return wider ? float : { class: 'half', wide: false };
  }

  /** Whether half precision holds a constant scalar. */
  #fit(value: Value | null): 'fits' | 'small' | 'large' {
    const tensor = value?.tensor;
    if (value === null || tensor === undefined || !this.#before.has(value) || elementsOf(tensor) !== 1)
      return 'fits';
    const size = Math.abs(numbersOf(tensor)?.[0] ?? 0);
    if (size !== 0 && size < SMALLEST[this.#options.dtype]) return 'small';
    return Number.isFinite(size) && size > LARGEST[this.#options.dtype] ? 'large' : 'fits';
  }

  #rewrite(node: Node): void {
    const { dtype } = this.#options;
    const { op } = node;
    if (node.domain === '' && SHAPES.has(op)) return;
    if (node.domain === '' && op === 'Cast') {
      const to = dtypeOf(node.output());
      if (to !== undefined && this.#before.has(node.output()))
        node.attributes.set('to', attr.int(DTYPE_CODES[to]));
      return;
    }
    const schema = schemaOf(node.domain, op, this.#model.opset(node.domain));
    const half = this.#classes.get(node) === 'half';
    for (const [i, input] of node.inputs.entries()) {
      if (input === null || !this.#before.has(input)) continue;
      const fits = half && schema !== undefined && takes(schema, formalAt(schema.inputs, i), dtype);
      const brought = this.#bring(input, fits ? dtype : 'float32', node);
      if (brought !== input) node.setInput(i, brought);
    }
  }

  /** `value` in `dtype`, for a reader. Casts are shared within the forward and within the backward pass. */
  #bring(value: Value, dtype: HalfDType | 'float32', reader: Node): Value {
    const key = `${value.id} ${dtype} ${this.#isForward(reader)}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const made = value.tensor === undefined ? undefined : this.#constant(value, value.tensor, dtype);
    const result = made ?? this.#cast(this.#storedForm(value), dtype, reader, this.#wide.has(value));
    this.#made.set(key, result);
    return result;
  }

  /** A frozen tensor in another dtype; undefined where it has to be cast in the graph. */
  #constant(value: Value, tensor: Tensor, dtype: HalfDType | 'float32'): Value | undefined {
    if (tensor.dtype === dtype && (dtype !== 'float32' || !this.#isLargeAndStored(value, tensor)))
      return value;
    return dtype === 'float32' ? undefined : this.#twin(value, tensor);
  }

  #isLargeAndStored(value: Value, tensor: Tensor): boolean {
    return this.#stored.has(value) && tensor.data.inline === undefined;
  }

  /** What a weight is stored as, where half precision stands in for it. */
  #storedForm(value: Value): Value {
    const { tensor } = value;
    return tensor !== undefined && this.#isLargeAndStored(value, tensor) ? this.#twin(value, tensor) : value;
  }

  #twin(value: Value, tensor: Tensor): Value {
    const { dtype } = this.#options;
    if (tensor.dtype === dtype) return value;
    const key = `${value.id} stored`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const lowered = loweredTensor(tensor, dtype);
    const twin = new Value({ hint: value.hint, tensor: lowered });
    twin.type = { kind: 'tensor', dtype, shape: [...tensor.dims] };
    this.#model.graph.addInitializer(twin);
    this.#made.set(key, twin);
    return twin;
  }

  #cast(value: Value, dtype: DType, reader: Node | undefined, wide: boolean): Value {
    if ((dtypeOf(value) ?? value.tensor?.dtype) === dtype) return value;
    const { graph } = this.#model;
    const b = new Builder(this.#model, { provenance: 'precision' });
    const half = dtype === 'float32' ? undefined : this.#options.dtype;
    const limited = wide && half !== undefined ? b.op.Clip(value, -limitOf(half), limitOf(half)) : value;
    const cast = b.op.Cast(limited, { to: dtype });
    for (const node of b.nodes) {
      if (reader === undefined) graph.append(node);
      else graph.insertBefore(reader, node);
    }
    for (const constant of b.initializers) graph.addInitializer(constant);
    return cast;
  }

  #restored(value: Value): Value {
    const dtype = this.#before.get(value);
    return dtype === undefined ? value : this.#cast(value, dtype, undefined, false);
  }
}

function takes(schema: OpSchema, formal: Formal | undefined, dtype: DType): boolean {
  return formal !== undefined && allows(schema, formal, dtype);
}

function setDType(value: Value, dtype: DType): void {
  if (value.type?.kind === 'tensor') value.type = { ...value.type, dtype };
}
