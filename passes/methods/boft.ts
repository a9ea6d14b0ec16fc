import { z } from 'zod';
import type { Value } from '../../src/graph.js';
import { ones, zeros } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import { defineMethod } from './contract/method.js';
import { numberOf } from './contract/peft-format.js';
import { asRow } from './parts/convolution.js';
import { ofFiles, onWeights } from './parts/on-weights.js';
import { cayley, rotated } from './parts/rotation.js';

const config = z.strictObject({
  size: z.int().min(2).default(4).describe('Size of the rotated blocks; divides the input of the modules'),
  factors: z.int().min(1).default(1).describe('Butterfly factors'),
});

/**
 * Places that a butterfly gathers rows from: of every 2^(level + 1) blocks, the halves of blocks with even numbers before
 * those with odd ones. Level 0 of several factors pairs neighbours; a single factor gathers nothing.
 */
function butterfly(width: number, size: number, level: number): number[] {
  const half = size / 2;
  const span = size * 2 ** level;
  const halves = span / half;
  const order = [
    ...Array.from({ length: Math.ceil(halves / 2) }, (_, i) => 2 * i),
    ...Array.from({ length: Math.floor(halves / 2) }, (_, i) => 2 * i + 1),
  ];
  return Array.from({ length: width }, (_, i) => {
    const start = Math.floor(i / span) * span;
    const within = i - start;
    return start + (order[Math.floor(within / half)] as number) * half + (within % half);
  });
}

function inverseOf(places: readonly number[]): number[] {
  const inverse = new Array<number>(places.length);
  for (const [to, from] of places.entries()) inverse[from] = to;
  return inverse;
}

function gathered(op: Ops, w: Value, places: readonly number[]): Value {
  return op.Gather(w, op.Constant({ value_ints: places }), { axis: 0 });
}

/**
 * Orthogonal butterflies: `W' = (F_m … F_1 W) ⊙ s`, every factor `F = P blockdiag(R₁, R₂, …) Pᵀ` a rotation by blocks of
 * rows that a permutation brings together; `R = (I − K)(I + K)⁻¹` with `K = (Q − Qᵀ) / 2`. PEFT has more factors than one
 * where its CUDA kernel was built.
 */
export default defineMethod({
  id: 'boft',
  summary: 'Rotation of the inputs of every module and a scale on its outputs',
  paper: {
    title: 'Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization',
    arxiv: '2311.06243',
  },
  config,
  internal: ofFiles('BOFT'),
  sites: {
    linear: {
      ...onWeights(
        ({ inDim, outDim }, { size, factors }: z.output<typeof config>) => ({
          R: { shape: [factors, inDim / size, size, size], init: zeros, key: 'boft_R' },
          s: { shape: [outDim, 1], init: ones, key: 'boft_s' },
        }),
        (op, { w }, { R, s }, { size, factors }, { inDim, outDim }) => {
          let turned = w;
          for (let i = 0; i < factors; i++) {
            const blocks = op.Reshape(op.Slice(R, [i], [i + 1], [0]), [-1, size, size]);
            const skew = op.Mul(op.Sub(blocks, op.Transpose(blocks, { perm: [0, 2, 1] })), 0.5);
            const places = butterfly(inDim, size, i);
            const together = factors === 1 ? turned : gathered(op, turned, inverseOf(places));
            const rotation = rotated(op, cayley(op, skew, size), together, size, outDim);
            turned = factors === 1 ? rotation : gathered(op, rotation, places);
          }
          return { w: op.Mul(turned, op.Transpose(s, { perm: [1, 0] })) };
        },
      ),
      refuses: ({ inDim }, { size, factors }) => {
        const span = factors === 1 ? size : size * 2 ** (factors - 1);
        return inDim % span === 0 && (factors === 1 || size % 2 === 0)
          ? undefined
          : `${inDim} inputs cannot be cut into ${factors} butterflies of blocks of ${size}`;
      },
    },
  },
  peft: {
    types: ['BOFT'],
    tensors: { linear: { R: { key: 'boft_R' }, s: { key: 'boft_s', convolved: asRow } } },
    settings: (fields, module) => {
      const shape = module?.shapes.get('boft_R');
      return {
        size: shape?.[2] ?? numberOf(fields, 'boft_block_size', 4),
        factors: shape?.[0] ?? 1,
      };
    },
    config: ({ size, factors }) => ({
      boft_block_size: size,
      boft_block_num: 0,
      boft_n_butterfly_factor: factors ?? 1,
    }),
  },
});
