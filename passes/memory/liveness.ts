/** How much memory the intermediate values of a graph hold, node by node, in the order of execution. */
import type { Graph, Node, Value } from '../../src/graph.js';
import { valuesRead } from '../../src/order.js';
import type { ValueSizes } from './sizes.js';

/** Operators whose output is the buffer of their first input under another shape. */
const VIEWS: ReadonlySet<string> = new Set(['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten', 'Identity']);

/** Elementwise operators that write into an input that nobody reads afterwards, if it is of the same size. */
const IN_PLACE: ReadonlySet<string> = new Set([
  ...['Add', 'Sub', 'Mul', 'Div', 'Relu', 'Sigmoid', 'Exp', 'Log', 'Sqrt', 'Neg', 'Abs', 'Reciprocal'],
  ...['Clip', 'Cast', 'Not', 'Floor', 'Ceil', 'LeakyRelu', 'Elu'],
]);

export interface Peak {
  /** Most bytes of intermediate values alive at once. */
  readonly bytes: number;
  /** Where that is. */
  readonly node: Node | undefined;
  /** Values without a known size; they count as nothing. */
  readonly unknown: readonly Value[];
}

/** A buffer and how many of its readers are to come. */
interface Buffer {
  readonly bytes: number;
  pending: number;
  freed: boolean;
}

/** The peak over `order`. Inputs and initializers of the graph are not counted; outputs stay alive to the end. */
export function peakOf(graph: Graph, order: readonly Node[], sizes: ValueSizes): Peak {
  const outputs = new Set(graph.outputs.map(({ value }) => value));
  const pending = readersOf(order);
  const buffers = new Map<Value, Buffer>();
  const unknown: Value[] = [];
  let live = 0;
  let best = 0;
  let where: Node | undefined;
  for (const node of order) {
    for (const [i, output] of node.outputs.entries()) {
      if (output === null) continue;
      const readers = (pending.get(output) ?? 0) + (outputs.has(output) ? 1 : 0);
      const bytes = sizes.bytes(output);
      if (bytes === undefined) unknown.push(output);
      const reused = i === 0 ? reusable(node, bytes ?? 0, buffers) : undefined;
      if (reused !== undefined) {
        reused.pending += readers;
        buffers.set(output, reused);
        continue;
      }
      live += bytes ?? 0;
      buffers.set(output, { bytes: bytes ?? 0, pending: readers, freed: false });
    }
    if (live > best) {
      best = live;
      where = node;
    }
    for (const input of valuesRead(node)) live -= settle(buffers.get(input), 1);
    for (const output of node.outputs) if (output !== null) live -= settle(buffers.get(output), 0);
  }
  return { bytes: best, node: where, unknown };
}

/** How often each value is read. */
function readersOf(order: readonly Node[]): Map<Value, number> {
  const pending = new Map<Value, number>();
  for (const node of order)
    for (const input of valuesRead(node)) pending.set(input, (pending.get(input) ?? 0) + 1);
  return pending;
}

function reusable(node: Node, bytes: number, buffers: ReadonlyMap<Value, Buffer>): Buffer | undefined {
  if (node.domain !== '') return undefined;
  const first = node.inputs[0];
  if (VIEWS.has(node.op)) {
    if (first === null || first === undefined) return undefined;
    // A view of a weight or an input of the graph costs nothing.
    return buffers.get(first) ?? { bytes: 0, pending: 0, freed: false };
  }
  if (!IN_PLACE.has(node.op)) return undefined;
  for (const input of node.inputs) {
    const buffer = input === null ? undefined : buffers.get(input);
    if (buffer?.pending === 1 && buffer.bytes === bytes) return buffer;
  }
  return undefined;
}

/** The bytes that are free once nobody is left to read them. */
function settle(buffer: Buffer | undefined, read: number): number {
  if (buffer === undefined || buffer.freed) return 0;
  buffer.pending -= read;
  if (buffer.pending > 0) return 0;
  buffer.freed = true;
  return buffer.bytes;
}
