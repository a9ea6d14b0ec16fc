/** Hand-made ONNX models for runtime tests, encoded by `onnx-proto`, so that they do not depend on our own encoder. */
import onnxProto from 'onnx-proto';
import type { HostTensor } from '../../runtime/host-tensor.js';
import { DTYPE_CODES, type DType } from '../../src/types.js';

const { onnx } = onnxProto;

type Port = readonly [dtype: DType, shape: readonly (number | string)[]];
export interface TinyNode {
  readonly op: string;
  readonly in: readonly string[];
  readonly out: readonly string[];
  /** Integers, integer lists and floats written as `{f: 0.5}`. */
  readonly attrs?: Readonly<Record<string, number | readonly number[] | { readonly f: number }>>;
}

export interface TinySpec {
  readonly inputs: Readonly<Record<string, Port>>;
  readonly outputs: Readonly<Record<string, Port>>;
  readonly nodes: readonly TinyNode[];
  readonly initializers?: Readonly<Record<string, HostTensor>>;
  /** Initializers whose bytes are in another file. */
  readonly external?: Readonly<Record<string, { readonly tensor: HostTensor; readonly file: string }>>;
  readonly opset?: number;
}

export function tinyModel(spec: TinySpec): Uint8Array {
  const port = ([name, [dtype, shape]]: [string, Port]) => ({
    name,
    type: {
      tensorType: {
        elemType: DTYPE_CODES[dtype],
        shape: { dim: shape.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d })) },
      },
    },
  });
  const { AttributeType } = onnx.AttributeProto;
  const attribute = (name: string, value: NonNullable<TinyNode['attrs']>[string]) => {
    if (typeof value === 'number') return { name, type: AttributeType.INT, i: value };
    if ('f' in value) return { name, type: AttributeType.FLOAT, f: value.f };
    return { name, type: AttributeType.INTS, ints: [...value] };
  };
  const model = onnx.ModelProto.create({
    irVersion: 8,
    opsetImport: [{ domain: '', version: spec.opset ?? 17 }],
    graph: {
      name: 'tiny',
      input: Object.entries(spec.inputs).map(port),
      output: Object.entries(spec.outputs).map(port),
      initializer: [
        ...Object.entries(spec.initializers ?? {}).map(([name, tensor]) => ({
          name,
          dataType: DTYPE_CODES[tensor.dtype],
          dims: [...tensor.dims],
          rawData: tensor.data,
        })),
        ...Object.entries(spec.external ?? {}).map(([name, { tensor, file }]) => ({
          name,
          dataType: DTYPE_CODES[tensor.dtype],
          dims: [...tensor.dims],
          dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
          externalData: [{ key: 'location', value: file }],
        })),
      ],
      node: spec.nodes.map((node) => ({
        opType: node.op,
        name: `${node.op}_${node.out[0]}`,
        input: [...node.in],
        output: [...node.out],
        attribute: Object.entries(node.attrs ?? {}).map(([name, value]) => attribute(name, value)),
      })),
    },
  });
  return onnx.ModelProto.encode(model).finish().slice();
}
