/** Random small models over the whole attribute union, with subgraphs that capture and functions. */
import fc from 'fast-check';
import type { Attribute } from '../../src/attribute.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { Model } from '../../src/model.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { byteSize, type DType, tensorType, type ValueType } from '../../src/types.js';

const oddName = fc.oneof(
  fc.string({ maxLength: 8 }),
  fc.constantFrom(
    'a',
    'x',
    'float',
    'seq',
    'inf',
    '/layer.0/MatMul_output_0',
    'onnx::W',
    'w"q\\z',
    'é',
    '#@ x',
  ),
);
const DTYPES: DType[] = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int64',
  'uint64',
  'int8',
  'bool',
  'int4',
  'complex64',
];
const dims = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 });

/** NaN payloads have no spelling, so bytes that decode to NaN are left out. */
export const tensorArbitrary = fc
  .tuple(fc.constantFrom(...DTYPES), dims, fc.infiniteStream(fc.nat(255)))
  .map(([dtype, shape, stream]) => {
    const length = byteSize(
      dtype,
      shape.reduce((a, b) => a * b, 1),
    );
    const bytes = Uint8Array.from({ length }, () => stream.next().value ?? 0);
    const width = dtype === 'float64' ? 8 : dtype === 'float32' || dtype === 'complex64' ? 4 : 0;
    if (width > 0) for (let i = width - 1; i < length; i += width) bytes[i] = (bytes[i] ?? 0) & 0xbf;
    return tensorOfBytes(dtype, shape, bytes);
  });

const dim = fc.oneof(fc.nat(9), fc.constant(null), fc.constantFrom('batch', '2*seq + 1', 'a/b'));
export const typeArbitrary: fc.Arbitrary<ValueType> = fc.letrec<{ type: ValueType }>((tie) => ({
  type: fc.oneof(
    { maxDepth: 2 },
    fc
      .tuple(fc.constantFrom(...DTYPES), fc.option(fc.array(dim, { maxLength: 3 })))
      .map(([dtype, shape]) => tensorType(dtype, shape)),
    tie('type').map((element) => ({ kind: 'sequence' as const, element })),
    tie('type').map((element) => ({ kind: 'optional' as const, element })),
    tie('type').map((value) => ({ kind: 'map' as const, key: 'int64' as const, value })),
    fc.constant({ kind: 'sparse' as const, dtype: 'float32' as const, shape: [2, 'n'] }),
    fc.constantFrom(
      { kind: 'opaque' as const, domain: '', name: 'a.b' },
      { kind: 'opaque' as const, domain: 'd-e', name: 'f' },
    ),
  ),
})).type;

const float = fc.float().map((x) => (Number.isNaN(x) ? Number.NaN : x));
const int = fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
const bytes = fc.uint8Array({ maxLength: 4 });

function plainAttribute(): fc.Arbitrary<Attribute> {
  const sparse = tensorArbitrary.map((values) => ({ dims: [3, 4], values, indices: values }));
  return fc.oneof(
    float.map((value): Attribute => ({ type: 'float', value })),
    int.map((value): Attribute => ({ type: 'int', value })),
    fc.string().map((value): Attribute => ({ type: 'string', value })),
    bytes.map((value): Attribute => ({ type: 'bytes', value })),
    fc
      .tuple(tensorArbitrary, fc.option(oddName))
      .map(([value, name]): Attribute => ({ type: 'tensor', value, ...(name === null ? {} : { name }) })),
    sparse.map((value): Attribute => ({ type: 'sparse', value })),
    typeArbitrary.map((value): Attribute => ({ type: 'typeProto', value })),
    fc.array(float, { maxLength: 3 }).map((value): Attribute => ({ type: 'floats', value })),
    fc.array(int, { maxLength: 3 }).map((value): Attribute => ({ type: 'ints', value })),
    fc.array(fc.string(), { maxLength: 3 }).map((value): Attribute => ({ type: 'strings', value })),
    fc
      .array(bytes, { minLength: 1, maxLength: 3 })
      .map((value): Attribute => ({ type: 'byteStrings', value })),
    fc.array(tensorArbitrary, { maxLength: 2 }).map((value): Attribute => ({ type: 'tensors', value })),
    fc.array(sparse, { maxLength: 2 }).map((value): Attribute => ({ type: 'sparses', value })),
    fc.array(typeArbitrary, { maxLength: 2 }).map((value): Attribute => ({ type: 'typeProtos', value })),
    fc
      .tuple(oddName, fc.integer({ min: 1, max: 14 }))
      .map(([value, attrType]): Attribute => ({ type: 'ref', value: value || 'r', attrType })),
  );
}

interface NodeRecipe {
  readonly op: string;
  readonly domain: string;
  readonly overload: string;
  readonly name: string | undefined;
  readonly inputs: readonly number[];
  readonly outputs: readonly (string | null)[];
  readonly attributes: readonly (readonly [string, Attribute])[];
  readonly bodies: readonly GraphRecipe[];
  readonly doc: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
}

interface GraphRecipe {
  readonly name: string;
  readonly inputs: readonly { readonly hint: string; readonly type: ValueType | null }[];
  readonly initializers: readonly {
    readonly hint: string;
    readonly tensor: ReturnType<typeof tensorOfBytes>;
  }[];
  readonly nodes: readonly NodeRecipe[];
  readonly outputs: readonly number[];
}

const graphRecipe = fc.letrec<{ graph: GraphRecipe; node: NodeRecipe }>((tie) => ({
  node: fc.record<NodeRecipe>({
    op: fc.constantFrom('Add', 'If', 'MatMul', 'aten::foo'),
    domain: fc.constantFrom('', 'com.microsoft', 'pkg.torch.2.0', 'x-y'),
    overload: fc.constantFrom('', 'v1'),
    name: fc.option(oddName, { nil: undefined }),
    inputs: fc.array(fc.integer({ min: -1, max: 30 }), { maxLength: 3 }),
    outputs: fc.array(fc.option(oddName), { maxLength: 2 }),
    attributes: fc.uniqueArray(fc.tuple(fc.constantFrom('alpha', 'axis', 'to', 'a b'), plainAttribute()), {
      maxLength: 3,
      selector: ([name]) => name,
    }),
    bodies: fc.oneof({ maxDepth: 1 }, fc.constant([]), fc.array(tie('graph'), { maxLength: 2 })),
    doc: fc.option(fc.string(), { nil: undefined }),
    metadata: fc.dictionary(fc.string({ minLength: 1 }), fc.string(), { maxKeys: 2, noNullPrototype: true }),
  }),
  graph: fc.record<GraphRecipe>({
    name: oddName,
    inputs: fc.array(fc.record({ hint: oddName, type: fc.option(typeArbitrary) }), { maxLength: 3 }),
    initializers: fc.array(fc.record({ hint: oddName, tensor: tensorArbitrary }), { maxLength: 2 }),
    nodes: fc.array(tie('node'), { maxLength: 4 }),
    outputs: fc.array(fc.nat(30), { maxLength: 2 }),
  }),
})).graph;

function build(recipe: GraphRecipe, outer: readonly Value[]): Graph {
  const graph = new Graph();
  graph.name = recipe.name;
  const inner: Value[] = [];
  for (const { hint, type } of recipe.inputs)
    inner.push(graph.addInput(new Value({ hint, ...(type === null ? {} : { type }) })));
  for (const { hint, tensor } of recipe.initializers)
    inner.push(
      graph.addInitializer(new Value({ hint, tensor, type: tensorType(tensor.dtype, tensor.dims) })),
    );
  for (const node of recipe.nodes) {
    const visible = [...inner, ...outer];
    const made = new Node({
      op: node.op,
      domain: node.domain,
      overload: node.overload,
      inputs: node.inputs.map((i) => (i < 0 ? null : (visible[i % visible.length] ?? null))),
      outputs: node.outputs.map((hint) => (hint === null ? null : new Value({ hint }))),
      attributes: node.attributes,
    });
    made.name = node.name;
    if (node.doc !== undefined) made.doc = node.doc;
    for (const [key, value] of Object.entries(node.metadata)) made.metadata.set(key, value);
    const bodies = node.bodies.map((body) => build(body, visible));
    if (bodies.length === 1 && bodies[0] !== undefined)
      made.attributes.set('body', { type: 'graph', value: bodies[0] });
    else if (bodies.length > 1) made.attributes.set('bodies', { type: 'graphs', value: bodies });
    graph.append(made);
    for (const output of made.outputs) if (output !== null) inner.push(output);
  }
  if (inner.length > 0)
    for (const [i, at] of recipe.outputs.entries()) graph.addOutput(`out${i}`, inner[at % inner.length]!);
  return graph;
}

/** Models that need not make sense to a runtime but hold everything that the IR can hold. */
export const modelArbitrary: fc.Arbitrary<Model> = fc
  .record({
    graph: graphRecipe,
    functions: fc.array(fc.tuple(graphRecipe, fc.constantFrom('f', 'g/h'), fc.constantFrom('', 'ov')), {
      maxLength: 2,
    }),
    doc: fc.option(fc.string(), { nil: undefined }),
    metadata: fc.dictionary(fc.string(), fc.string(), { maxKeys: 2, noNullPrototype: true }),
    version: fc.bigInt({ min: 0n, max: 5n }),
  })
  .map(({ graph, functions, doc, metadata, version }) => {
    const model = new Model(build(graph, []));
    model.opsets.set('', 18).set('com.microsoft', 1);
    model.modelVersion = version;
    if (doc !== undefined) model.doc = doc;
    for (const [key, value] of Object.entries(metadata)) model.metadata.set(key, value);
    functions.forEach(([body, name, overload], i) => {
      model.functions.push({
        domain: 'local',
        name: `${name}${i}`,
        overload,
        graph: build({ ...body, name: '', initializers: [] }, []),
        attributeNames: ['alpha', 'a b'],
        opsets: new Map([['', 18]]),
      });
    });
    return model;
  });
