/** Blocks of a folded weight whose update is of low rank, by the kernel. */
import { ahead } from '../../../src/ahead.js';
import type { DType } from '../../../src/types.js';
import { sizeAt } from '../../../src/value-type.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../../host-tensor.js';
import type { FidelityMeter } from '../fidelity.js';
import type { Piece } from '../pieces.js';
import type { BlockRows, WeightToFold } from '../weight.js';
import type { Factors, LowRankKernel } from './kernel.js';
import { factorsOf, LEFT, RIGHT } from './split.js';
import { KERNEL_DTYPES, type KernelDType, STORAGES } from './storage.js';

/** Above this rank ONNX Runtime's products are worth the way to another thread. */
const MAX_RANK = 64;
/** Bytes of a block: worth the messages that it takes. */
const BLOCK_BYTES = 2 << 20;
/** Blocks under way: a thread of the kernel has the next one at hand when it is done with one. */
const UNDER_WAY = 4;

/** The factors of an update of low rank; undefined where the formula is another one, or its rank is high. */
export async function lowRankFactors(weight: WeightToFold): Promise<Factors | undefined> {
  const { task, base, evaluator, computeDtype } = weight;
  if (!isKernelDType(base.dtype) || computeDtype !== 'float32' || base.dims.length !== 2) return undefined;
  const formula = factorsOf(task.formula);
  const rank = sizeAt(formula?.graph.outputs[0]?.value, 0);
  if (formula === undefined || rank === undefined || rank > MAX_RANK) return undefined;
  const names = new Set(formula.graph.inputs.map(({ name }) => name));
  const operands = [...(await weight.operands())].filter(([name]) => names.has(name));
  const factors = await evaluator.runAll(formula, Object.fromEntries(operands));
  const { [LEFT]: left, [RIGHT]: right } = factors;
  const [rows = 0, columns = 0] = base.dims;
  if (left === undefined || right === undefined) return undefined;
  // A product of one row or one column may be added to all of them.
  if (left.dims.join() !== `${rank},${rows}` || right.dims.join() !== `${rank},${columns}`) return undefined;
  return {
    left: numbersOf(left) as Float32Array,
    right: numbersOf(right) as Float32Array,
    rank,
    rows,
    columns,
  };
}

export async function* lowRankBlocks(
  weight: WeightToFold,
  kernel: LowRankKernel,
  factors: Factors,
  meter: FidelityMeter,
): AsyncGenerator<Piece> {
  const { data } = weight.base;
  const dtype = weight.base.dtype as KernelDType;
  const loaded = kernel.load(factors);
  const blocks = weight.blocks(BLOCK_BYTES / STORAGES[dtype].bytes);
  try {
    for await (const { rows, updated } of ahead(blocks, UNDER_WAY, async (rows) => ({
      rows,
      updated: await kernel.update(loaded, { dtype, data }, rows),
    }))) {
      const { bytes, sums } = updated;
      if (Number.isFinite(sums.base + sums.delta + sums.lost))
        meter.addSums(rows.count * factors.columns, sums);
      // Some number is not finite, or its square is not: they are looked at one by one.
      else {
        const dims = [rows.count, factors.columns];
        weight.measure(meter, rows, unrounded(weight, factors, rows), { dtype, dims, data: bytes });
      }
      yield updated;
    }
  } finally {
    loaded.free();
  }
}

/** Rows of w + L R in float32, as the kernel computes them. */
function unrounded(
  weight: WeightToFold,
  { left, right, rank, ...dims }: Factors,
  rows: BlockRows,
): HostTensor {
  const { columns } = dims;
  const stored = weight.rows(rows);
  const sums = Float32Array.from(numbersOf(stored) as ArrayLike<number>, (number, index) => {
    const row = rows.row + Math.floor(index / columns);
    const column = index % columns;
    let sum = 0;
    for (let r = 0; r < rank; r++) {
      const product = Math.fround(
        (left[r * dims.rows + row] as number) * (right[r * columns + column] as number),
      );
      sum = Math.fround(sum + product);
    }
    return number + sum;
  });
  weight.evaluator.lanes.free(stored.data);
  return tensorOfNumbers('float32', stored.dims, sums);
}

function isKernelDType(dtype: DType): dtype is KernelDType {
  return (KERNEL_DTYPES as readonly DType[]).includes(dtype);
}
