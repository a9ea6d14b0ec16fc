/**
 * Checkpoints of ONNX Runtime's on-device training: one flatbuffer with the identifier `ODTC`, after
 * `onnxruntime/core/flatbuffers/schema/ort_training_checkpoint.fbs` (version 2, ONNX Runtime 1.17 to 1.19).
 */
import type { Tensor } from '../../src/tensor.js';

export const IDENTIFIER = 'ODTC';
export const VERSION = 2;

/** The only group of parameters that the runtime knows. */
export const GROUP = 'group0';
/** Names of the moments, in the order of the optimizer model's inputs. */
export const momentName = (index: number): string => `momentum${index}`;

/** Large tensors lie in a file of this name beside the checkpoint, where it says so. */
export const dataFile = (checkpoint: string): string => `${checkpoint}.data`;

/** Field ids of the schema. */
export const FIELDS = {
  checkpoint: { version: 0, moduleState: 1, optimizerGroups: 2, propertyBag: 3 },
  moduleState: { trainable: 0, frozen: 1, nominal: 2, externalData: 3 },
  tensor: { name: 0, doc: 1, dims: 2, dtype: 3, data: 4, strings: 5, externalOffset: 6 },
  group: { name: 0, step: 1, learningRate: 2, states: 3 },
  state: { param: 0, moments: 1 },
  bag: { ints: 0, floats: 1, strings: 2 },
  property: { name: 0, value: 1 },
} as const;

/** The runtime's integers and floats are 64 and 32 bits wide; strings are UTF-8. */
export type Property = bigint | number | string;

export interface OptimizerState {
  /** Optimizer steps done. */
  readonly step: number;
  /** What the runtime calls the initial rate. It restores it, and does not train with it. */
  readonly initialLearningRate: number;
  /** By parameter; one tensor of its shape per moment of the optimizer. */
  readonly moments: ReadonlyMap<string, readonly Tensor[]>;
}

export interface OrtCheckpoint {
  /** Parameters by name, in file order. */
  readonly trainable: ReadonlyMap<string, Tensor>;
  readonly frozen: ReadonlyMap<string, Tensor>;
  /** The tensors have names and types, and neither dimensions nor values. */
  readonly nominal: boolean;
  /** Absent: training starts at step 0 with moments of zero. */
  readonly optimizer?: OptimizerState;
  readonly properties: ReadonlyMap<string, Property>;
}
