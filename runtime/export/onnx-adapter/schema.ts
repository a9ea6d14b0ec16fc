/**
 * `.onnx_adapter`: a FlatBuffer of named tensors that ONNX Runtime appends to the feeds of a run (`OrtLoraAdapter`).
 * Schema: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1:
 *
 *     table Adapter   { format_version: int; adapter_version: int; model_version: int; parameters: [Parameter]; }
 *     table Parameter { name: string; dims: [int64]; data_type: int; raw_data: [ubyte] (force_align: 8); }
 *     root_type Adapter; file_identifier "TORT";
 */
import type { Tensor } from '../../../src/tensor.js';
import type { DType } from '../../../src/types.js';

export const IDENTIFIER = 'TORT';

/** The only version that ONNX Runtime reads. */
export const FORMAT_VERSION = 1;

/** Fields of the tables, in order. */
export const ADAPTER = { formatVersion: 0, adapterVersion: 1, modelVersion: 2, parameters: 3 } as const;
export const PARAMETER = { name: 0, dims: 1, dataType: 2, rawData: 3 } as const;

/** Types that a parameter may have: ONNX Runtime's loader knows no others. */
export const TYPES: ReadonlySet<DType> = new Set<DType>([
  'float32',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'float16',
  'float64',
  'uint32',
  'uint64',
  'bfloat16',
  'float8e4m3fn',
  'float8e4m3fnuz',
  'float8e5m2',
  'float8e5m2fnuz',
]);

/** What a file says of itself; both are free. */
export interface AdapterVersions {
  readonly adapterVersion: number;
  readonly modelVersion: number;
}

export interface OnnxAdapter extends AdapterVersions {
  /** By name of the graph input, in file order. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}
