/** Matrix products. */
import type { Rules } from '../call.js';
import { matmulShape, unifyDims } from '../shapes.js';

export const linear: Rules = {
  MatMul: (c) => c.set(0, c.dtype(0) ?? c.dtype(1), matmulShape(c, c.shape(0), c.shape(1))),
  Gemm: (c) => {
    const a = c.shape(0);
    const b = c.shape(1);
    if (a !== null && a.length !== 2) c.error(`Gemm needs matrices; A has rank ${a.length}`);
    if (b !== null && b.length !== 2) c.error(`Gemm needs matrices; B has rank ${b.length}`);
    const [m = null, k1 = null] = a === null ? [] : c.int('transA', 0) !== 0 ? [a[1], a[0]] : [a[0], a[1]];
    const [k2 = null, n = null] = b === null ? [] : c.int('transB', 0) !== 0 ? [b[1], b[0]] : [b[0], b[1]];
    unifyDims(c, k1, k2, 'Inner dimensions');
    c.set(0, c.dtype(0) ?? c.dtype(1), [m, n]);
  },
};
