/** What the builder accepts as an operand and hands back as a result. */
import type { Value } from '../graph.js';

/** A whole number; ONNX INT attributes are 64 bits wide. */
export type Int = number | bigint;

/** Numbers written in place; they become constants of the dtype that the op's type constraint demands. */
export type Literal = number | bigint | boolean | readonly Int[];

/** A value of the graph or a literal. */
export type Operand = Value | Literal;

type Tuples = {
  1: [Value];
  2: [Value, Value];
  3: [Value, Value, Value];
  4: [Value, Value, Value, Value];
  5: [Value, Value, Value, Value, Value];
  6: [Value, Value, Value, Value, Value, Value];
  7: [Value, Value, Value, Value, Value, Value, Value];
  8: [Value, Value, Value, Value, Value, Value, Value, Value];
};

/** The results of an op built with an output count: a tuple when the count is a literal up to 8. */
export type Outputs<N extends number> = N extends keyof Tuples ? Tuples[N] : Value[];
