/** Attention of ai.onnx (opset 23). */
import { addDims, divideDims, floorDivDims, mulDims } from '../../dims.js';
import type { Dim } from '../../types.js';
import type { Rule, Rules } from '../call.js';

/** Q, K, V are [batch, heads, seq, size] or [batch, seq, heads·size]. */
const attention: Rule = (c) => {
  const q = c.shape(0);
  const k = c.shape(1);
  const v = c.shape(2);
  const past = c.shape(4);
  if (q === null || v === null) return c.set(0, c.dtype(0), q === null ? null : q.map(() => null));
  const flat = q.length === 3;
  const qHeads = c.int('q_num_heads');
  const kvHeads = c.int('kv_num_heads');
  const per = (dim: Dim, heads: number | undefined): Dim =>
    heads === undefined ? null : (divideDims(dim, heads) ?? floorDivDims(dim, heads));
  const heads: Dim = flat ? (qHeads ?? null) : (q[1] ?? null);
  const sequence = flat ? (q[1] ?? null) : (q[2] ?? null);
  const kv: Dim = flat ? (kvHeads ?? null) : (v[1] ?? null);
  const kvSequence = flat ? (v[1] ?? null) : (v[2] ?? null);
  const vSize = flat ? per(v[2] ?? null, kvHeads) : (v[3] ?? null);
  const kSize = k === null ? null : flat ? per(k[2] ?? null, kvHeads) : (k[3] ?? null);
  const total = past === null ? (c.has(4) ? null : kvSequence) : addDims(past[2] ?? null, kvSequence);
  const batch = q[0] ?? null;
  c.set(0, c.dtype(0), flat ? [batch, sequence, mulDims(heads, vSize)] : [batch, heads, sequence, vSize]);
  c.set(1, c.dtype(1), [batch, kv, total, kSize]);
  c.set(2, c.dtype(2), [batch, kv, total, vSize]);
  c.set(3, c.dtype(0), [batch, heads, sequence, total]);
};

export const attentions: Rules = { Attention: attention };
