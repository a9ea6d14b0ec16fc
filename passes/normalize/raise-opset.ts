/**
 * Raises the opset of a training graph, so that patterns can become ops that came later (LayerNormalization 17, Gelu 20)
 * and scatters can add (16). Every op whose form changed on the way is rewritten to the new form, or known to read the
 * same; if one op is neither, the model stays as it is.
 */
import { attr, intAttribute } from '../../src/attribute.js';
import { type Node, type Value, walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import type { Builder } from '../../src/ops/builder.js';
import { type OpSchema, schemaOf } from '../../src/ops/schema.js';
import { dtypeOf, rankOf } from '../../src/value-type.js';
import type { Edit } from '../edit.js';
import { numbersOf } from '../grad/scalars.js';
import { definePass } from '../pass.js';
import { payloadOf } from '../sites/payload.js';
import { replaceNode } from './rewrite.js';

/** What training graphs are raised to: Gelu is there, and every runtime since ONNX Runtime 1.17 reads it. */
export const TRAINING_OPSET = 20;
/** Below this, too much changed meaning. */
const OLDEST = 9;

/** Rewrites a node of an old form into the form of `TRAINING_OPSET`. */
type Lift = (b: Builder, node: Node) => readonly (Value | null)[];

/** An attribute that became an input. */
function attributeToInput(name: string, index: number): Lift {
  return (b, node) => {
    const attribute = node.attributes.get(name);
    const rest = Object.fromEntries([...node.attributes].filter(([key]) => key !== name));
    const inputs: (Value | null)[] = [...node.inputs];
    while (inputs.length < index) inputs.push(null);
    if (attribute?.type === 'ints') inputs[index] = b.ints(attribute.value);
    return rebuild(b, node, inputs, rest);
  };
}

function rebuild(
  b: Builder,
  node: Node,
  inputs: readonly (Value | null)[],
  attributes: Parameters<Builder['call']>[2],
): readonly (Value | null)[] {
  const made = b.call(node.op, inputs, attributes, {
    outputs: node.outputs.map((output) => output !== null),
  });
  let next = 0;
  return node.outputs.map((output) => (output === null ? null : (made[next++] ?? null)));
}

/** Split without sizes has to say into how many parts since 18. */
const split: Lift = (b, node) => {
  const sizes = node.attributes.get('split');
  if (sizes !== undefined) return attributeToInput('split', 1)(b, node);
  const attributes = Object.fromEntries(node.attributes);
  if (node.inputs[1] != null) return rebuild(b, node, node.inputs, attributes);
  return rebuild(b, node, node.inputs, { ...attributes, num_outputs: attr.int(node.outputs.length) });
};

/** Softmax over all axes from `axis` on, as before 13: over the columns of a matrix. */
const coercedSoftmax: Lift = (b, node) => {
  const x = node.input(0);
  const axis = intAttribute(node, 'axis', 1);
  const rank = rankOf(x);
  if (axis === -1 || axis + 1 === rank) return b.call(node.op, [x], { axis: attr.int(-1) });
  const flat = b.op.Flatten(x, { axis });
  const [y = flat] = b.call(node.op, [flat], { axis: attr.int(-1) });
  return [b.op.Reshape(y, b.op.Shape(x))];
};

/** Bounds were attributes before 11; what is left out bounds nothing. */
const clip: Lift = (b, node) => {
  const bound = (name: string): Value | null => {
    const attribute = node.attributes.get(name);
    return attribute?.type === 'float'
      ? b.scalar(attribute.value, dtypeOf(node.input(0)) ?? 'float32')
      : null;
  };
  return b.call('Clip', [node.input(0), bound('min'), bound('max')]);
};

/** Starts, ends and axes were attributes before 10. */
const slice: Lift = (b, node) => {
  const list = (name: string): Value | null => {
    const attribute = node.attributes.get(name);
    return attribute?.type === 'ints' ? b.ints(attribute.value) : null;
  };
  return b.call('Slice', [node.input(0), list('starts'), list('ends'), list('axes')]);
};

/** An empty tensor stands for an input that is absent, before 13. */
const present = (value: Value | null | undefined): Value | null => {
  const dims = value == null ? undefined : payloadOf(value)?.dims;
  return value == null || dims?.includes(0) === true ? null : value;
};

const resize: Lift = (b, node) => {
  const [x, ...rest] = node.inputs;
  return rebuild(b, node, [x ?? null, ...rest.map(present)], Object.fromEntries(node.attributes));
};

/** Without attributes for it, a resized image is sampled at i/scale, rounded down where pixels repeat. */
const plainResize: Lift = (b, node) => {
  const attributes = Object.fromEntries(node.attributes);
  return b.call('Resize', [node.input(0), null, node.input(1)], {
    ...attributes,
    coordinate_transformation_mode: 'asymmetric',
    nearest_mode: 'floor',
  });
};

/** Resize of opset 10 rounds up where it shrinks. */
function enlarges(node: Node): boolean {
  const mode = node.attributes.get('mode');
  const scales = node.inputs[1] == null ? undefined : payloadOf(node.inputs[1]);
  const numbers = scales === undefined ? undefined : numbersOf(scales);
  return (mode?.type === 'string' && mode.value === 'linear') || numbers?.every((s) => s >= 1) === true;
}

/** Resize lost this rule of coordinates in 13. */
function keepsCoordinates(node: Node): boolean {
  const rule = node.attributes.get('coordinate_transformation_mode');
  return rule?.type !== 'string' || rule.value !== 'tf_half_pixel_for_nn';
}

const REDUCTIONS = [
  'ReduceMean',
  'ReduceMax',
  'ReduceMin',
  'ReduceProd',
  'ReduceL1',
  'ReduceL2',
  'ReduceLogSum',
  'ReduceLogSumExp',
  'ReduceSumSquare',
];

interface Lifted {
  /** Opset that brought the new form. */
  readonly since: number;
  readonly lift: Lift;
  /** Whether the node has a new form; default: every one has. */
  readonly when?: (node: Node) => boolean;
}

/** By operator, forms of older opsets first. */
const LIFTS: ReadonlyMap<string, readonly Lifted[]> = new Map<string, readonly Lifted[]>([
  ['ReduceSum', [{ since: 13, lift: attributeToInput('axes', 1) }]],
  ['Squeeze', [{ since: 13, lift: attributeToInput('axes', 1) }]],
  ['Unsqueeze', [{ since: 13, lift: attributeToInput('axes', 1) }]],
  ['Softmax', [{ since: 13, lift: coercedSoftmax }]],
  ['LogSoftmax', [{ since: 13, lift: coercedSoftmax }]],
  ['Split', [{ since: 18, lift: split }]],
  // In inference the same under other names of its inputs.
  [
    'BatchNormalization',
    [{ since: 14, lift: (b, node) => rebuild(b, node, node.inputs, Object.fromEntries(node.attributes)) }],
  ],
  ['Clip', [{ since: 11, lift: clip }]],
  ['Slice', [{ since: 10, lift: slice }]],
  ...REDUCTIONS.map((op): [string, readonly Lifted[]] => [
    op,
    [{ since: 18, lift: attributeToInput('axes', 1) }],
  ]),
  ['Upsample', [{ since: 10, lift: plainResize }]],
  [
    'Resize',
    [
      { since: 11, lift: plainResize, when: enlarges },
      { since: 13, lift: resize, when: keepsCoordinates },
    ],
  ],
]);

/** Ops whose meaning or defaults changed in ways that their signature does not show. */
const CHANGED: ReadonlySet<string> = new Set([
  'Dropout',
  'GridSample',
  'GroupNormalization',
  'Hardmax',
  'RoiAlign',
  'DFT',
]);

/** With outputs beside the first, BatchNormalization is in training, which later versions say and do differently. */
function givesStatistics({ op, outputs }: Node): boolean {
  return op === 'BatchNormalization' && outputs.slice(1).some((output) => output !== null);
}

/** Every input, output and attribute of the old form means the same in the new one. */
function readsTheSame(node: Node, from: OpSchema, to: OpSchema): boolean {
  if (CHANGED.has(node.op) || to.deprecated) return false;
  const sameFormals = from.inputs.every((formal, i) => to.inputs[i]?.name === formal.name);
  const kept = [...node.attributes.keys()].every((name) => to.attributes.has(name));
  const optional = to.inputs.slice(from.inputs.length).every(({ option }) => option !== 'single');
  const defaults = [...from.attributes].every(
    ([name, attribute]) =>
      node.attributes.has(name) ||
      JSON.stringify(to.attributes.get(name)?.default) === JSON.stringify(attribute.default),
  );
  return sameFormals && kept && optional && defaults;
}

/** The way from the form that the node has; the first that came after it. */
function liftOf({ op }: Node, opset: number): Lifted | undefined {
  return LIFTS.get(op)?.find(({ since }) => opset < since);
}

/** Whether the node has to be rewritten; undefined when it cannot be raised. */
function needsLift(node: Node, opset: number): boolean | undefined {
  if (node.domain !== '') return false;
  const from = schemaOf('', node.op, opset);
  const to = schemaOf('', node.op, TRAINING_OPSET);
  // Ops without a schema (ONNX Runtime's own in the standard domain) have no versions.
  if (from === undefined || to === undefined) return false;
  if (from.since === to.since) return false;
  if (givesStatistics(node)) return undefined;
  const lifted = liftOf(node, opset);
  if (lifted !== undefined) return lifted.when?.(node) === false ? undefined : true;
  return readsTheSame(node, from, to) ? false : undefined;
}

export const raiseOpsetPass = definePass({
  name: 'raise-opset',
  summary: `raises models of opset ${OLDEST} to ${TRAINING_OPSET - 1} to ${TRAINING_OPSET} where every op allows it`,
  *run(model: Model): Iterable<Edit> {
    const opset = model.opset('');
    if (opset < OLDEST || opset >= TRAINING_OPSET || model.functions.length > 0) return;
    const lifts: Node[] = [];
    for (const node of walkNodes(model.graph)) {
      const lift = needsLift(node, opset);
      if (lift === undefined) return;
      if (lift) lifts.push(node);
    }
    model.opsets.set('', TRAINING_OPSET);
    for (const node of lifts) {
      const lift = liftOf(node, opset)?.lift;
      if (lift !== undefined) yield replaceNode(model, node, 'raise-opset', (b) => lift(b, node));
    }
  },
});
