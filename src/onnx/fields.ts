/** Field numbers of `onnx-ml.proto` (IR 13) that the graph models. All other fields are carried along verbatim. */
export const MODEL = {
  irVersion: 1,
  producerName: 2,
  producerVersion: 3,
  domain: 4,
  modelVersion: 5,
  doc: 6,
  graph: 7,
  opset: 8,
  metadata: 14,
  functions: 25,
} as const;

export const GRAPH = {
  node: 1,
  name: 2,
  initializer: 5,
  doc: 10,
  input: 11,
  output: 12,
  valueInfo: 13,
  sparse: 15,
  metadata: 16,
} as const;

export const NODE = {
  input: 1,
  output: 2,
  name: 3,
  op: 4,
  attribute: 5,
  doc: 6,
  domain: 7,
  overload: 8,
  metadata: 9,
} as const;

export const FUNCTION = {
  name: 1,
  input: 4,
  output: 5,
  attribute: 6,
  node: 7,
  doc: 8,
  opset: 9,
  domain: 10,
  attributeDefault: 11,
  valueInfo: 12,
  overload: 13,
  metadata: 14,
} as const;

export const ATTRIBUTE = {
  name: 1,
  f: 2,
  i: 3,
  s: 4,
  t: 5,
  g: 6,
  floats: 7,
  ints: 8,
  strings: 9,
  tensors: 10,
  graphs: 11,
  tp: 14,
  typeProtos: 15,
  type: 20,
  ref: 21,
  sparse: 22,
  sparses: 23,
} as const;

export const TENSOR = {
  dims: 1,
  dtype: 2,
  segment: 3,
  floatData: 4,
  int32Data: 5,
  stringData: 6,
  int64Data: 7,
  name: 8,
  raw: 9,
  doubleData: 10,
  uint64Data: 11,
  doc: 12,
  external: 13,
  location: 14,
  metadata: 16,
} as const;

export const SPARSE = { values: 1, indices: 2, dims: 3 } as const;
export const VALUE_INFO = { name: 1, type: 2, doc: 3, metadata: 4 } as const;
export const ENTRY = { key: 1, value: 2 } as const;
export const OPSET = { domain: 1, version: 2 } as const;
export const TYPE = { tensor: 1, sequence: 4, map: 5, opaque: 7, sparse: 8, optional: 9 } as const;
/** Field 1 and 2 of the messages inside `TypeProto`. */
export const TYPE_PART = { first: 1, second: 2 } as const;
export const SHAPE = { dim: 1 } as const;
export const DIM = { value: 1, param: 2 } as const;
