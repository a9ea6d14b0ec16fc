/** Reshape, Squeeze, Unsqueeze, Flatten: the same elements in the same order under other dims. */

import { intAttribute } from '../../../src/attribute.js';
import { countOf } from '../../../src/types.js';
import { constantIntegers, intsOfAttributeOrInput } from '../payload.js';
import type { Link } from './link.js';

export const reshape: Link = {
  ops: ['Reshape'],
  dims(node, input) {
    const target = constantIntegers(node.inputs[1]);
    if (target === undefined) return undefined;
    const keepsZero = intAttribute(node, 'allowzero', 0) === 1;
    const dims = target.map((dim, axis) => (dim === 0 && !keepsZero ? (input[axis] ?? 1) : dim));
    const free = dims.indexOf(-1);
    if (free >= 0) dims[free] = countOf(input) / countOf(dims.filter((_, axis) => axis !== free));
    return dims;
  },
};

export const squeeze: Link = {
  ops: ['Squeeze'],
  dims(node, input) {
    const axes = intsOfAttributeOrInput(node, 'axes', 1);
    if (axes === undefined) return node.inputs[1] ? undefined : input.filter((dim) => dim !== 1);
    const dropped = new Set(axes.map((axis) => (axis < 0 ? axis + input.length : axis)));
    return input.filter((_, axis) => !dropped.has(axis));
  },
};

export const unsqueeze: Link = {
  ops: ['Unsqueeze'],
  dims(node, input) {
    const axes = intsOfAttributeOrInput(node, 'axes', 1);
    if (axes === undefined) return undefined;
    const rank = input.length + axes.length;
    const added = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
    const rest = [...input];
    return Array.from({ length: rank }, (_, axis) => (added.has(axis) ? 1 : (rest.shift() ?? 1)));
  },
};

export const flatten: Link = {
  ops: ['Flatten'],
  dims(node, input) {
    const given = intAttribute(node, 'axis', 1);
    const axis = given < 0 ? given + input.length : given;
    return [countOf(input.slice(0, axis)), countOf(input.slice(axis))];
  },
};
