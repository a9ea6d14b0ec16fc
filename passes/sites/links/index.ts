/** All links by operator. */
import type { Node } from '../../../src/graph.js';
import { cast, identity } from './cast.js';
import { dequantize } from './dequantize.js';
import type { Link } from './link.js';
import { flatten, reshape, squeeze, unsqueeze } from './reshape.js';
import { transpose } from './transpose.js';

const LINKS: ReadonlyMap<string, Link> = new Map(
  [identity, cast, transpose, reshape, squeeze, unsqueeze, flatten, dequantize].flatMap((link) =>
    link.ops.map((op) => [op, link] as const),
  ),
);

export function linkOf(node: Node): Link | undefined {
  return LINKS.get(node.qualifiedOp);
}

export type { Link } from './link.js';
