import type { Use } from '../../../src/graph.js';
import { rankOf } from '../../../src/value-type.js';
import type { LinearSite } from '../site.js';
import type { LinearDims } from '../views.js';
import type { Kind, Slot, StoredTensor } from './kind.js';
import { featuresBack, featuresLast } from './layout.js';
import { lazily } from './lazily.js';
import { openRange } from './range.js';
import { effective } from './stack.js';
import {
  currentMatrix,
  currentVector,
  matrixSlot,
  storedMatrix,
  storedVectorOf,
  vectorSlot,
} from './weights.js';

/** `y = x w + b`: MatMul, Gemm, 1×1 Conv and what fuses them, whole or a column range. */
export const linear: Kind<LinearSite> = {
  dims: ({ path, inDim, outDim, dtype, bias, role, x, window, groups }): LinearDims => ({
    path,
    inDim,
    outDim,
    dtype,
    bias: bias !== undefined,
    role,
    rank: rankOf(x),
    ...(window === undefined ? {} : { window, groups }),
  }),

  stored({ weight, bias, inDim, outDim, node }) {
    const stored: Record<string, StoredTensor> = { w: storedMatrix(weight, inDim, node, outDim) };
    if (bias !== undefined) stored.b = storedVectorOf(bias);
    return stored;
  },

  open({ op }, site, stack) {
    const { weight, bias, inDim, node, path } = site;
    const range = site.range === undefined ? undefined : openRange(op, site.range);
    const y = stack.current.get('y') ?? (range === undefined ? site.y : undefined);
    const values = effective(op, stack, {
      w: () => currentMatrix(op, weight, inDim, node, path),
      ...(bias === undefined ? {} : { b: () => currentVector(op, bias) }),
    });
    const view = lazily(linear.dims(site), {
      x: () => featuresLast(op, site.x, site.xAxis),
      y: () => (y === undefined ? range?.value() : featuresLast(op, y, site.yAxis)),
      b: () => undefined,
      ...values,
    });
    const slots: Record<string, Slot> = { w: matrixSlot(op, weight, inDim, node) };
    if (bias !== undefined) slots.b = vectorSlot(op, bias);
    const producer = y?.producer;
    if (range !== undefined) slots.y = range.slot;
    else if (y !== undefined && producer !== undefined)
      slots.y = (value) => {
        const to = featuresBack(op, value, site.yAxis);
        return { at: { after: producer }, redirects: [{ from: y, to }], replaced: to };
      };
    // The parts of a packed linear share its input: none can have another.
    if (site.y !== undefined && site.packedIn === undefined)
      slots.x = (value) => {
        const to = featuresBack(op, value, site.xAxis);
        const inside = (use: Use) =>
          use.kind === 'node' &&
          (use.node === node || stack.inner.has(use.node)) &&
          use.node.graph !== undefined;
        return { at: { before: node }, redirects: [{ from: site.x, to, only: inside }] };
      };
    return { view, slots };
  },
};
