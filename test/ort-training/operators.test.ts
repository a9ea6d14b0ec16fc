/** Operators that the training API's runtime lacks: written out as their kernels compute them, or refused by name. */
import ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { fitOperators } from '../../passes/targets/ort-training/operators.js';
import { PeftCompileError } from '../../src/errors.js';
import { walkNodes } from '../../src/graph.js';
import { randomStream } from '../../src/initializer.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { type Tensor, tensorOfBytes } from '../../src/tensor.js';
import { parseModel } from '../../src/text/index.js';
import { byteSize, type DType, tensorType } from '../../src/types.js';
import { numbers, runModel } from '../helpers/run.js';

/** Every code is there, by chance. */
function codes(dtype: DType, ...dims: number[]): Tensor {
  const random = randomStream(dims.length, `codes ${dims.join()}`);
  const count = byteSize(
    dtype,
    dims.reduce((product, dim) => product * dim, 1),
  );
  return tensorOfBytes(
    dtype,
    dims,
    Uint8Array.from({ length: count }, () => 256 * random()),
  );
}

function floats(seed: string, ...dims: number[]): Tensor {
  const random = randomStream(1, seed);
  const count = dims.reduce((product, dim) => product * dim, 1);
  return tensorOf(
    'float32',
    dims,
    Array.from({ length: count }, () => random() - 0.4),
  );
}

/** A model from text, with constants by name. */
function modelOf(text: string, constants: Readonly<Record<string, Tensor>>): Model {
  const model = parseModel(text);
  for (const input of [...model.graph.inputs]) {
    const tensor = constants[input.name ?? ''];
    if (tensor === undefined) continue;
    model.graph.inputs.splice(model.graph.inputs.indexOf(input), 1);
    input.tensor = tensor;
    input.type = tensorType(tensor.dtype, tensor.dims);
    model.graph.addInitializer(input);
  }
  return model;
}

const opsOf = (model: Model): string[] => [...walkNodes(model.graph)].map((node) => node.qualifiedOp);

function refusal(model: Model): PeftCompileError {
  try {
    fitOperators(model);
  } catch (error) {
    if (error instanceof PeftCompileError) return error;
    throw error;
  }
  throw new Error('It was taken');
}

const IDS = new ort.Tensor('int64', BigInt64Array.from([3n, 0n, -1n, 6n, 3n, 5n]), [2, 3]);

describe('GatherBlockQuantized', () => {
  const gather = (
    attributes: string,
    type: string,
    inputs: string,
  ) => `<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
main (int64[2,n] ids, ${type} table, float scales${inputs.includes('zeros') ? `, ${type} zeros` : ''}) => (float[2,n,c] y) {
  y = com.microsoft.GatherBlockQuantized <block_size = 16${attributes}> (${inputs})
}`;
  const WITH = 'table, ids, scales, zeros';
  const WITHOUT = 'table, ids, scales';
  it.each<[string, DType, number, string, number[] | undefined]>([
    ['uint4, one block', 'uint4', 16, '', [7, 1]],
    ['uint4, three blocks, the last of them short', 'uint4', 40, '', [7, 3]],
    ['int4', 'int4', 32, '', [7, 2]],
    ['int4 without zero points', 'int4', 48, '', undefined],
    ['bytes of two', 'uint8', 24, ', bits = 4', [7, 2]],
    ['bytes of two without zero points', 'uint8', 24, ', bits = 4', undefined],
    ['bytes of one', 'uint8', 48, ', bits = 8', [7, 3]],
  ])('%s', async (_, dtype, width, attributes, zeros) => {
    const columns = attributes.includes('4') ? 2 * width : width;
    const constants = {
      table: codes(dtype, 7, width),
      scales: floats('scales', 7, Math.ceil(columns / 16)),
      ...(zeros === undefined ? {} : { zeros: codes(dtype, ...zeros) }),
    };
    const text = gather(attributes, dtype, zeros === undefined ? WITHOUT : WITH);
    const model = modelOf(text, constants);
    const { y: wanted } = await runModel(model, { ids: IDS });
    fitOperators(model);
    expect(opsOf(model).filter((op) => op.startsWith('com.'))).toEqual([]);
    const { y } = await runModel(model, { ids: IDS });
    expect(y?.dims).toEqual([2, 3, columns]);
    // One product of small integers and a float: exact.
    expect(numbers(y)).toEqual(numbers(wanted));
  });

  it('along another axis is refused, with a way out', () => {
    const text = gather(', gather_axis = 1, quantize_axis = 0', 'uint4', WITHOUT);
    const constants = { table: codes('uint4', 16, 8), scales: floats('scales', 1, 8) };
    const { code, message, remedy } = refusal(modelOf(text, constants));
    expect(code).toBe('E_UNSUPPORTED');
    expect(message).toMatch(/1\.19\.2.*has no operator com\.microsoft\.GatherBlockQuantized/);
    expect(remedy).toMatch(/step target/);
  });
});

describe('MatMulNBits', () => {
  const product = (
    attributes: string,
    zeros: string,
  ) => `<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
main (float[2,m,40] x, uint8 w, float scales${zeros === '' ? '' : `, ${zeros} zeros`}) => (float[2,m,6] y) {
  y = com.microsoft.MatMulNBits <K = 40, N = 6, block_size = 16${attributes}> (x, w, scales${zeros === '' ? '' : ', zeros'})
}`;
  const x = new ort.Tensor(
    'float32',
    Float32Array.from({ length: 240 }, (_, i) => Math.sin(i)),
    [2, 3, 40],
  );
  it.each<[string, number, string, Tensor | undefined]>([
    ['of 8 bits', 8, 'uint8', codes('uint8', 6, 3)],
    ['of 8 bits without zero points', 8, '', undefined],
    ['of 2 bits', 2, 'uint8', codes('uint8', 6, 1)],
    ['of 2 bits with float zero points', 2, 'float', floats('zeros', 6, 3)],
  ])('%s', async (_, bits, type, zeros) => {
    const model = modelOf(product(`, bits = ${bits}`, type), {
      w: codes('uint8', 6, 3, 2 * bits),
      scales: floats('scales', 6, 3),
      ...(zeros === undefined ? {} : { zeros }),
    });
    const { y: wanted } = await runModel(model, { x });
    fitOperators(model);
    expect(opsOf(model)).not.toContain('com.microsoft.MatMulNBits');
    const { y } = await runModel(model, { x });
    const scale = Math.max(...numbers(wanted).map(Math.abs));
    // Sums of 40 products.
    numbers(y).forEach((value, i) => {
      expect(Math.abs(value - numbers(wanted)[i]!)).toBeLessThan(40 * 2 ** -24 * scale);
    });
  });

  it('of 4 bits stays, and says so as the runtime wants it said', () => {
    const model = modelOf(product(', weight_prepacked = 0', ''), {
      w: codes('uint8', 6, 3, 8),
      scales: floats('scales', 6, 3),
    });
    fitOperators(model);
    const [node] = [...model.graph.nodes()];
    expect(node?.op).toBe('MatMulNBits');
    expect([...(node?.attributes ?? [])].map(([name]) => name).sort()).toEqual([
      'K',
      'N',
      'bits',
      'block_size',
    ]);
  });
});

describe('other operators', () => {
  it('keep attributes that came later only where they mean nothing', () => {
    const attention = (softcap: string) =>
      parseModel(`<ir_version: 10, opset_import: ["" : 17, "com.microsoft" : 1]>
main (float[1,4,8] q, float[1,4,8] k, float[1,4,8] v, float[1,2,0,4] pk, float[1,2,0,4] pv, int32[1] n, int32[1] t)
  => (float[1,4,8] y) {
  y, a, b = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 2, softcap = ${softcap}> (q, k, v, pk, pv, n, t)
}`);
    const plain = attention('0.0');
    fitOperators(plain);
    expect(opsOf(plain)).toEqual(['com.microsoft.GroupQueryAttention']);
    expect([...plain.graph.nodes()][0]?.attributes.has('softcap')).toBe(false);
    const capped = attention('5.0');
    fitOperators(capped);
    expect(opsOf(capped)).not.toContain('com.microsoft.GroupQueryAttention');
  });

  it('that nothing is known of pass, and those that came later are refused by name', () => {
    const node = (op: string) =>
      parseModel(`<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
main (float[2,4] x) => (float[2,4] y) { y = com.microsoft.${op} (x) }`);
    fitOperators(node('OwnOperator'));
    expect(refusal(node('LinearAttention')).message).toMatch(/no operator com\.microsoft\.LinearAttention/);
  });
});
