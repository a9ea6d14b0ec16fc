/** How large the integers of a graph input may be: by the tables that the graph looks them up in. */
import { intAttribute } from '../src/attribute.js';
import type { Node, Value } from '../src/graph.js';
import { shapeOf } from '../src/value-type.js';

/** What an operator does with the integers at an input. */
interface Reader {
  /** Size of the axis that they index. */
  readonly indexes?: (node: Node, input: number) => number | undefined;
  /** Whether its first output holds those of its first input: what bounds them bounds these. */
  readonly handsOn?: true;
}

const handsOn: Reader = { handsOn: true };

const READERS: Readonly<Record<string, Reader>> = {
  Gather: {
    indexes: (node, input) =>
      input === 1 ? sizeOf(node.input(0), intAttribute(node, 'axis', 0)) : undefined,
  },
  EmbedLayerNormalization: {
    indexes: (node, input) => {
      // Token ids and segment ids.
      const table = [2, 4][input];
      return table === undefined ? undefined : sizeOf(node.input(table), 0);
    },
  },
  Cast: handsOn,
  Reshape: handsOn,
  Unsqueeze: handsOn,
  Squeeze: handsOn,
  Flatten: handsOn,
  Identity: handsOn,
  Slice: handsOn,
  Transpose: handsOn,
};

/** Smallest size of the axes that the values index, through reshapes and casts; undefined when they index none. */
export function indexBound(value: Value, depth = 8): number | undefined {
  const bounds = [...value.uses].flatMap((use) => {
    if (use.kind !== 'node') return [];
    const { node, index } = use;
    const reader = READERS[node.op];
    const output = reader?.handsOn === true && index === 0 && depth > 0 ? node.outputs[0] : undefined;
    const bound = output == null ? reader?.indexes?.(node, index) : indexBound(output, depth - 1);
    return bound === undefined ? [] : [bound];
  });
  return bounds.length === 0 ? undefined : Math.min(...bounds);
}

function sizeOf(table: Value, axis: number): number | undefined {
  const size = (table.tensor?.dims ?? shapeOf(table))?.at(axis);
  return typeof size === 'number' ? size : undefined;
}
