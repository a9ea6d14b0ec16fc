/** Control flow, sequences and optionals. */
import { type Dim, tensorType, type ValueType } from '../../types.js';
import { type Rule, type Rules, unknownShape } from '../call.js';
import { joinTypes } from '../merge.js';

/** Both branches are typed; outputs are what both agree on, or those of the branch a constant condition takes. */
const branch: Rule = (c) => {
  const thenGraph = c.graph('then_branch');
  const elseGraph = c.graph('else_branch');
  const yes = thenGraph === undefined ? [] : c.engine.enter(thenGraph, []);
  const no = elseGraph === undefined ? [] : c.engine.enter(elseGraph, []);
  const [condition] = c.dims(0) ?? [];
  c.node.outputs.forEach((_, index) => {
    if (typeof condition === 'number') c.setType(index, condition !== 0 ? yes[index] : no[index]);
    else c.setType(index, joinTypes(yes[index], no[index]));
  });
};

/** Types that a loop's carried values keep over iterations: the join of initial and final types, until it is stable. */
const loop: Rule = (c) => {
  const body = c.graph('body');
  if (body === undefined) return;
  const count = c.node.inputs.length - 2;
  let carried = Array.from({ length: count }, (_, i) => c.valueType(i + 2));
  let outputs: (ValueType | undefined)[] = [];
  // A dimension that changes becomes unknown, so two rounds suffice but for chains of dependent changes.
  for (let round = 0; round < 4; round++) {
    outputs = c.engine.enter(body, [tensorType('int64', []), tensorType('bool', []), ...carried]);
    const joined = carried.map((type, i) => joinTypes(type, outputs[i + 1]));
    const stable = joined.every((type, i) => JSON.stringify(type) === JSON.stringify(carried[i]));
    carried = joined;
    if (stable) break;
  }
  const trips: Dim = body.outputs[0]?.value === undefined || c.has(1) ? null : (c.dims(0)?.[0] ?? null);
  for (let index = 0; index < c.node.outputs.length; index++) {
    const scanned = outputs[index + 1];
    if (index < count) c.setType(index, carried[index]);
    else if (scanned?.kind === 'tensor') {
      const shape = scanned.shape === null ? null : [trips ?? c.engine.freshDim(), ...scanned.shape];
      c.set(index, scanned.dtype, shape);
    }
  }
};

const scan: Rule = (c) => {
  const body = c.graph('body');
  const scans = c.int('num_scan_inputs', 0);
  if (body === undefined) return;
  const states = c.node.inputs.length - scans;
  const axes = c.ints('scan_input_axes') ?? [];
  let length: Dim = null;
  const inputs = c.node.inputs.map((value, index): ValueType | undefined => {
    const type = value?.type;
    if (index < states || type?.kind !== 'tensor' || type.shape === null) return type;
    const axis = c.axis(axes[index - states] ?? 0, type.shape.length);
    length = typeof length === 'number' ? length : (type.shape[axis] ?? length);
    return { ...type, shape: type.shape.filter((_, i) => i !== axis) };
  });
  const results = c.engine.enter(body, inputs);
  const outAxes = c.ints('scan_output_axes') ?? [];
  for (let index = 0; index < c.node.outputs.length; index++) {
    const type = results[index];
    if (index < states || type?.kind !== 'tensor' || type.shape === null) {
      c.setType(index, type);
      continue;
    }
    const shape = [...type.shape];
    shape.splice(c.axis(outAxes[index - states] ?? 0, shape.length + 1), 0, length);
    c.set(index, type.dtype, shape);
  }
};

const sequence = (element: ValueType | undefined): ValueType | undefined =>
  element === undefined ? undefined : { kind: 'sequence', element };

export const control: Rules = {
  If: branch,
  Loop: loop,
  Scan: scan,
  SequenceConstruct: (c) => {
    const types = c.node.inputs.map((_, i) => c.valueType(i));
    c.setType(0, sequence(types.reduce((a, b) => joinTypes(a, b), types[0])));
  },
  SequenceAt: (c) => {
    const type = c.valueType(0);
    c.setType(0, type?.kind === 'sequence' ? type.element : undefined);
  },
  SequenceInsert: (c) => {
    const type = c.valueType(0);
    if (type?.kind === 'sequence')
      c.setType(0, sequence(joinTypes(type.element, c.valueType(1)) ?? type.element));
  },
  SequenceErase: (c) => c.setType(0, c.valueType(0)),
  SequenceLength: (c) => c.set(0, 'int64', []),
  SplitToSequence: (c) => {
    const type = c.type(0);
    if (type === undefined) return;
    const axis = type.shape === null ? 0 : c.axis(c.int('axis', 0), type.shape.length);
    const each = c.has(1) ? null : 1;
    const keep = c.has(1) || c.int('keepdims', 1) !== 0;
    const split = type.shape?.flatMap((dim, i): Dim[] => (i !== axis ? [dim] : keep ? [each] : [])) ?? null;
    c.setType(0, sequence({ ...type, shape: split }));
  },
  ConcatFromSequence: (c) => {
    const type = c.valueType(0);
    if (type?.kind !== 'sequence' || type.element.kind !== 'tensor') return;
    const { dtype, shape } = type.element;
    if (shape === null) return c.set(0, dtype, null);
    const stack = c.int('new_axis', 0) !== 0;
    const axis = c.axis(c.int('axis', 0), shape.length + (stack ? 1 : 0));
    const out: Dim[] = [...shape];
    out.splice(axis, stack ? 0 : 1, c.engine.freshDim());
    c.set(0, dtype, out);
  },
  Optional: (c) => {
    const type = c.valueType(0);
    if (type !== undefined) c.setType(0, { kind: 'optional', element: type });
  },
  OptionalGetElement: (c) => {
    const type = c.valueType(0);
    c.setType(0, type?.kind === 'optional' ? type.element : type);
  },
  OptionalHasElement: (c) => c.set(0, 'bool', []),
  StringSplit: (c) => {
    const shape = c.shape(0);
    c.set(0, 'string', shape === null ? null : [...shape, c.engine.freshDim()]);
    c.set(1, 'int64', shape);
  },
  RegexFullMatch: (c) => c.set(0, 'bool', c.shape(0)),
  TfIdfVectorizer: (c) => {
    const rank = c.rank(0);
    c.set(0, 'float32', rank === undefined ? null : unknownShape(rank));
  },
};
