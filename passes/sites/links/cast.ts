/** Identity and Cast: the same elements, perhaps in another type. */
import { intAttribute } from '../../../src/attribute.js';
import { dtypeOfCode } from '../../../src/types.js';
import type { Link } from './link.js';

export const identity: Link = {
  ops: ['Identity'],
  dims: (_node, input) => input,
};

export const cast: Link = {
  ops: ['Cast'],
  dims: (_node, input) => input,
  dtype: (node) => dtypeOfCode(intAttribute(node, 'to', 0)),
};
