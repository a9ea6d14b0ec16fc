/** Blocks of a folded weight whose update is of low rank, by the kernel. */
import { ahead } from '../../../src/ahead.js';
import type { Model } from '../../../src/model.js';
import { byteSize, type DType } from '../../../src/types.js';
import { sizeAt } from '../../../src/value-type.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../../host-tensor.js';
import type { FidelityMeter } from '../fidelity.js';
import type { Piece } from '../pieces.js';
import type { BlockRows, WeightToFold } from '../weight.js';
import { evaluateHere } from './evaluate.js';
import type { Factors, LowRankKernel } from './kernel.js';
import { TILE_ROWS } from './program.js';
import { LEFT, RIGHT } from './split.js';
import { KERNEL_DTYPES, type KernelDType } from './storage.js';

/** Above this rank ONNX Runtime's products are worth the way to another thread. */
const MAX_RANK = 64;
/** Bytes of a block: worth the messages that it takes. Long rows may make it so much longer to fill tiles. */
const BLOCK_BYTES = 2 << 20;
const LONG_BLOCK_BYTES = 8 << 20;
/** What a weight may take of the kernel's memory, which addresses of 32 bits limit: factors of two, and a dozen blocks. */
const MAX_FACTOR_BYTES = 512 << 20;
const MAX_ROW_BYTES = 64 << 20;
/** Blocks under way: a thread of the kernel has the next one at hand when it is done with one. */
const UNDER_WAY = 4;

/** The formula of the factors of an update of low rank; undefined where the formula is another one, or too much for the kernel. */
export function lowRankFormula({ task, base, computeDtype, evaluator }: WeightToFold): Model | undefined {
  if (!isKernelDType(base.dtype) || computeDtype !== 'float32' || base.dims.length !== 2) return undefined;
  const formula = evaluator.factorsOf(task.formula);
  const rank = sizeAt(formula?.graph.outputs[0]?.value, 0);
  const [rows = 0, columns = 0] = base.dims;
  const fits =
    rank !== undefined &&
    rank <= MAX_RANK &&
    byteSize('float32', rank * (rows + columns)) <= MAX_FACTOR_BYTES &&
    byteSize(base.dtype, columns) <= MAX_ROW_BYTES;
  return fits ? formula : undefined;
}

/** Undefined where the factors do not have the rows and columns of the weight: they may be added to all of them. */
export async function lowRankFactors(weight: WeightToFold, formula: Model): Promise<Factors | undefined> {
  const names = new Set(formula.graph.inputs.map(({ name }) => name));
  const operands = new Map([...(await weight.operands())].filter(([name]) => names.has(name)));
  const factors =
    evaluateHere(formula, operands) ?? (await weight.evaluator.runAll(formula, Object.fromEntries(operands)));
  const { [LEFT]: left, [RIGHT]: right } = factors;
  const [rows = 0, columns = 0] = weight.base.dims;
  const [rank = 0] = left?.dims ?? [];
  if (left?.dims.join() !== `${rank},${rows}` || right?.dims.join() !== `${rank},${columns}`)
    return undefined;
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
  const blocks = weight.blocks(rowsOfBlock(byteSize(dtype, factors.columns)));
  try {
    const update = async (rows: BlockRows) => ({
      rows,
      updated: await kernel.update(loaded, { dtype, data }, rows),
    });
    for await (const { rows, updated } of ahead(blocks, UNDER_WAY, update, ({ updated }) => updated.free())) {
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

function rowsOfBlock(rowBytes: number): number {
  const rows = Math.max(1, Math.floor(BLOCK_BYTES / rowBytes));
  const tiles = Math.floor(rows / TILE_ROWS);
  if (tiles > 0) return tiles * TILE_ROWS;
  return TILE_ROWS * rowBytes <= LONG_BLOCK_BYTES ? TILE_ROWS : rows;
}

function isKernelDType(dtype: DType): dtype is KernelDType {
  return (KERNEL_DTYPES as readonly DType[]).includes(dtype);
}
