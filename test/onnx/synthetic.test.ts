/** Encodings that protobuf allows and exporters do not write, and everything of IR 13 that fixtures lack. */
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { type Attribute, attr } from '../../src/attribute.js';
import { Node, Value } from '../../src/graph.js';
import { decodeModel, encodeModel } from '../../src/onnx/index.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { f32, f64, info, int, len, model, node, v } from './support.js';

const unknown = [
  int(99, 5),
  len(98, 'kept'),
  f32(97, 1.5),
  f64(96, 2.5),
  // A group (wire types 3 and 4), with a group inside.
  Buffer.concat([v(95 * 8 + 3), int(1, 1), v(94 * 8 + 3), v(94 * 8 + 4), v(95 * 8 + 4)]),
];
const entry = (field: number, key: string, value: string) => len(field, [len(2, value), len(1, key)]);
const floats = (...values: number[]) => Buffer.concat(values.map((x) => f32(1, x).subarray(1)));

/** A tensor with all header fields in an odd order. */
const tensor = (name: string, dtype: number, dims: number[], ...payload: Uint8Array[]) =>
  Buffer.concat([int(2, dtype, 2), ...payload, len(8, name), ...dims.map((d) => int(1, d)), ...unknown]);

const branch = (name: string, outer: string) =>
  Buffer.concat([
    len(12, info(name, 1)),
    len(1, node('Neg', [outer], [name], unknown)),
    len(2, `branch ${name}`),
    ...unknown,
  ]);

/** One model with nearly everything in it, in an order and with lengths that no library writes. */
function odd(): Buffer {
  const w = tensor('w', 1, [2], len(4, floats(1, 2)));
  const half = tensor('half', 10, [2], int(5, 0x3c00), int(5, 0x4000));
  const nibbles = tensor('nibbles', 22, [3], len(5, Buffer.concat([v(0x21), v(0x03)])));
  const big = tensor('big', 1, [1024], len(9, Buffer.alloc(4096, 7), 2));
  const words = tensor('words', 8, [2], len(6, 'a'), len(6, Buffer.from([0xff, 0])));
  const long = tensor('long', 7, [2], len(7, Buffer.concat([v(-1n), v(5, 3)])));
  const sparse = [
    len(2, [...[2].map((d) => int(1, d)), int(2, 7), len(7, Buffer.concat([v(1), v(3)])), len(8, 'i')]),
    len(1, tensor('sparse', 1, [2], len(9, floats(7, 8)))),
    int(3, 2),
    int(3, 2),
    ...unknown,
  ];
  const conditional = node(
    'If',
    ['c'],
    ['if'],
    [
      len(5, [len(6, branch('t', 'x')), int(20, 5), len(1, 'then_branch')]),
      len(5, [int(20, 5), len(1, 'else_branch'), len(6, branch('t', 'y')), ...unknown], 3),
      ...unknown,
    ],
  );
  const many = node(
    'Odd',
    ['x', '', 'big', ''],
    ['y', ''],
    [
      len(7, 'custom'),
      len(8, 'overload'),
      len(3, ''),
      len(6, 'doc'),
      entry(9, 'pkg.torch.onnx.name_scopes', "['', 'a.b']"),
      entry(9, 'twice', '1'),
      entry(9, 'twice', '2'),
      len(10, [len(1, 'device'), len(2, [len(1, 'x')])]),
      len(5, [len(1, 'i'), int(3, 0), int(20, 2)]),
      len(5, [int(20, 1), f32(2, 0.1), len(1, 'f')]),
      len(5, [int(20, 7), len(1, 'packed'), len(8, Buffer.concat([v(-3), v(7, 1)]))]),
      len(5, [int(20, 6), len(1, 'floats'), len(7, floats(1, Number.NaN)), f32(7, 3)]),
      len(5, [len(1, 's'), len(4, Buffer.from([0xc3, 0x28])), int(20, 3)]),
      len(5, [len(1, 'untyped'), len(4, 'text')]),
      len(5, [len(1, 'type'), int(20, 13), len(14, [len(4, [len(1, info('', 1, ['n']).subarray(4))])])]),
      len(5, [len(1, 'const'), int(20, 4), len(5, tensor('inner', 1, [600], len(9, Buffer.alloc(2400, 1))))]),
      len(5, [len(1, 'sp'), int(20, 11), len(22, sparse)]),
    ],
  );
  const fn = [
    len(1, 'F'),
    len(10, 'custom'),
    len(13, 'overload'),
    len(9, [int(2, 20), len(1, 'ai.onnx')]),
    len(7, node('Mul', ['a', 'a'], ['b'], [len(5, [len(1, 'k'), len(21, 'alpha'), int(20, 1)])])),
    len(5, 'b'),
    len(4, 'a'),
    len(6, 'alpha'),
    len(11, [len(1, 'beta'), f32(2, 2), int(20, 1)]),
    len(12, info('b', 1)),
    entry(14, 'k', 'v'),
    ...unknown,
  ];
  // The graph comes in two pieces, which protobuf joins.
  const first = [
    len(12, info('y', 1, [2])),
    len(1, many, 1),
    len(5, w),
    len(11, [
      len(1, 'x'),
      len(2, [len(1, [int(1, 1), len(2, [len(1, [int(1, 2), len(3, 'DATA_BATCH')])])])]),
    ]),
  ];
  const second = [
    ...[half, nibbles, big, words, long].map((t) => len(5, t)),
    len(15, sparse),
    len(1, conditional),
    len(11, info('c', 9)),
    len(14, [len(1, 'w'), entry(2, 'SCALE_TENSOR', 'half')]),
    len(13, info('gone', 1)),
    len(13, info('if', 1, ['n'])),
    entry(16, 'graph', 'meta'),
    ...unknown,
    len(12, info('if', 1)),
    len(12, info('sparse', 1, [2, 2])),
  ];
  return Buffer.concat([
    len(25, fn, 1),
    len(7, first, 2),
    entry(14, 'b', '2'),
    len(8, [len(1, 'ai.onnx'), int(2, 20)]),
    len(26, [len(1, 'cfg'), int(2, 2)]),
    int(1, 13, 4),
    len(7, second),
    ...unknown,
    len(8, [int(2, 1), len(1, 'custom')]),
    len(20, [len(1, [len(2, 'init')])]),
    entry(14, 'a', '1'),
  ]);
}

describe('a model in an unusual encoding', () => {
  const bytes = odd();

  it('is read', () => {
    const m = decodeModel(bytes);
    const byName = new Map([...m.graph.initializers].map((value) => [value.name, value.tensor!]));
    const raw = (name: string) => [...byName.get(name)!.data.read(0, byName.get(name)!.data.byteLength)];
    expect(raw('half')).toEqual([0, 0x3c, 0, 0x40]);
    expect(raw('nibbles')).toEqual([0x21, 0x03]);
    expect(raw('long')).toEqual([...Array(8).fill(255), 5, 0, 0, 0, 0, 0, 0, 0]);
    expect(new Float32Array(Uint8Array.from(raw('sparse')).buffer)).toEqual(Float32Array.of(0, 7, 0, 8));
    expect(byName.get('words')!.strings!.map((s) => [...s])).toEqual([[97], [255, 0]]);
    const node = m.graph.firstNode!;
    expect(node.attributes.get('packed')).toEqual(attr.ints([-3, 7]));
    expect(node.attributes.get('f')).toEqual(attr.float(0.1));
    expect(node.attributes.get('s')?.type).toBe('bytes');
    expect(node.attributes.get('untyped')).toEqual(attr.string('text'));
    expect(node.inputs.map((i) => i?.name)).toEqual(['x', undefined, 'big', undefined]);
    const [then, other] = node.next!.subgraphs;
    expect(then!.firstNode!.input(0)).toBe(m.graph.inputs[0]);
    expect(other!.firstNode!.input(0)).toBe(node.output(0));
    expect(m.functions[0]!.attributeDefaults!.get('beta')).toEqual(attr.float(2));
    expect(m.opsets).toEqual(
      new Map([
        ['', 20],
        ['custom', 1],
      ]),
    );
  });

  it('is written back byte for byte', () => expect(bytes.equals(encodeModel(decodeModel(bytes)))).toBe(true));

  it('keeps every byte of all parts that a change does not touch', () => {
    const m = decodeModel(bytes);
    const inner = m.graph.lastNode!.subgraphs[1]!;
    inner.firstNode!.metadata.set('new', 'entry');
    const out = Buffer.from(encodeModel(m));
    const pieces = {
      sibling: len(5, [len(6, branch('t', 'x')), int(20, 5), len(1, 'then_branch')]),
      tensor: tensor('nibbles', 22, [3], len(5, Buffer.concat([v(0x21), v(0x03)]))),
      training: len(20, [len(1, [len(2, 'init')])]),
      change: len(9, [len(1, 'new'), len(2, 'entry')]),
    };
    for (const [name, piece] of Object.entries(pieces)) expect(out.includes(piece), name).toBe(true);
    // Unknown fields stay in the node, the graph around it and the node around that.
    const count = (b: Buffer): number => b.toString('latin1').split('kept').length;
    expect(count(out)).toBe(count(bytes));
    const again = decodeModel(out);
    expect(again.graph.lastNode!.subgraphs[1]!.firstNode!.metadata.get('new')).toBe('entry');
    again.graph.lastNode!.subgraphs[1]!.firstNode!.metadata.delete('new');
    expect(decodeModel(encodeModel(again)).graph.nodeCount).toBe(2);
  });
});

describe('values as they are now', () => {
  const base = () =>
    decodeModel(
      model([
        len(11, info('x', 1, ['n', 2])),
        len(5, [int(1, 2), int(2, 1), len(4, floats(1, 2)), len(8, 'w'), len(12, 'a weight')]),
        len(1, node('Add', ['x', 'w'], ['h'], [len(3, 'add')])),
        len(1, node('Relu', ['h'], ['y'], [len(3, 'relu')])),
        len(13, info('h', 1, ['n', 2])),
        len(12, info('y', 1, ['n', 2])),
      ]),
    );
  const read = (m: ReturnType<typeof base>) => onnxProto.onnx.ModelProto.decode(encodeModel(m));

  it('writes new nodes, attributes of all kinds and slots through Identity', () => {
    const m = base();
    const attributes: [string, Attribute][] = [
      ['i', attr.int(-(2n ** 63n))],
      ['f', attr.float(0.1)],
      ['s', attr.string('ä')],
      ['is', attr.ints([1, -1])],
      ['fs', attr.floats([1, 2])],
      ['t', attr.tensor(tensorOfBytes('int64', [], Buffer.from([9, 0, 0, 0, 0, 0, 0, 0])))],
    ];
    const out = new Value({ hint: 'h' });
    const made = new Node({
      op: 'Odd',
      domain: 'd',
      inputs: [m.graph.inputs[0]!, null],
      outputs: [out],
      attributes,
    });
    made.provenance = 'lora';
    m.graph.insertBefore(m.graph.lastNode!, made);
    m.graph.lastNode!.setInput(0, out);
    m.graph.addOutput('z', m.graph.outputs[0]!.value);
    m.opsets.set('d', 1);
    const proto = read(m).graph!;
    expect(proto.node!.map((n) => [n.opType, n.name, n.input, n.output])).toEqual([
      ['Add', 'add', ['x', 'w'], ['h']],
      ['Odd', 'lora/Odd', ['x', ''], ['h_1']],
      ['Relu', 'relu', ['h_1'], ['y']],
      ['Identity', 'Identity', ['y'], ['z']],
    ]);
    const written = proto.node![1]!.attribute!;
    expect(written.map((a) => [a.name, a.type])).toEqual([
      ['i', 2],
      ['f', 1],
      ['s', 3],
      ['is', 7],
      ['fs', 6],
      ['t', 4],
    ]);
    expect(String(written[0]!.i)).toBe('-9223372036854775808');
    expect(Buffer.from(written[2]!.s!).toString()).toBe('ä');
    expect(proto.output!.map((o) => o.name)).toEqual(['y', 'z']);
    expect(read(m).opsetImport!.map((o) => [o.domain, Number(o.version)])).toEqual([
      ['', 20],
      ['d', 1],
    ]);
  });

  it('replaces a payload and keeps the texts of its tensor', () => {
    const m = base();
    const [w] = m.graph.initializers;
    w!.tensor = tensorOfBytes('float32', [2], floats(3, 4));
    const written = read(m).graph!.initializer![0]!;
    expect(written.docString).toBe('a weight');
    expect(written.floatData).toEqual([]);
    expect(Buffer.from(written.rawData!)).toEqual(floats(3, 4));
  });

  it('refuses a payload that does not fit its shape', () => {
    const m = base();
    const [w] = m.graph.initializers;
    w!.tensor = tensorOfBytes('float32', [3], floats(3, 4));
    expect(() => encodeModel(m)).toThrowError(expect.objectContaining({ code: 'E_INVALID_GRAPH' }));
  });

  it('leaves declared types alone unless they became wrong', () => {
    const m = base();
    const h = m.graph.firstNode!.output(0);
    h.type = { kind: 'tensor', dtype: 'float32', shape: [8, 2] };
    const bytes = encodeModel(m);
    expect(Buffer.from(bytes).equals(encodeModel(base()))).toBe(true);
    h.type = { kind: 'tensor', dtype: 'float16', shape: ['n', 2] };
    expect(read(m).graph!.valueInfo![0]!.type!.tensorType!.elemType).toBe(10);
  });

  it('drops the declaration of a value that is gone and renames one whose name was claimed', () => {
    const m = base();
    const relu = m.graph.lastNode!;
    const h = m.graph.firstNode!.output(0);
    m.graph.outputs[0]!.value = h;
    m.graph.remove(relu);
    const proto = read(m).graph!;
    expect(proto.node!.map((n) => n.output)).toEqual([['y']]);
    expect(proto.valueInfo!.map((i) => i.name)).toEqual(['y']);
  });

  it('reads files in which Constant nodes repeat a name, and writes them back', () => {
    const value = (n: number) => len(5, [len(1, 'value_int'), int(3, n), int(20, 2)]);
    const bytes = model([
      len(1, node('Constant', [], ['c'], [value(1)])),
      len(1, node('Constant', [], ['c'], [value(2)])),
      len(1, node('Neg', ['c'], ['y'])),
      len(12, info('y', 7)),
    ]);
    const m = decodeModel(bytes);
    expect(m.graph.lastNode!.input(0).producer!.attributes.get('value_int')).toEqual(attr.int(2));
    expect(bytes.equals(encodeModel(m))).toBe(true);
  });
});
