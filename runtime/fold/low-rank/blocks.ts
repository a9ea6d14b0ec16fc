/** Blocks of a folded weight whose update is of low rank, by the kernel. */
import { ahead } from '../../../src/ahead.js';
import { sizeAt } from '../../../src/value-type.js';
import { numbersOf } from '../../host-tensor.js';
import type { FidelityMeter } from '../fidelity.js';
import type { Piece } from '../pieces.js';
import type { WeightToFold } from '../weight.js';
import type { Factors, LowRankKernel } from './kernel.js';
import { factorsOf, LEFT, RIGHT } from './split.js';

/** Above this rank ONNX Runtime's products are worth the way to another thread. */
const MAX_RANK = 64;
/** Elements of a block: worth the messages that it takes. */
const BLOCK_ELEMENTS = 1 << 19;
/** Blocks under way: a thread of the kernel has the next one at hand when it is done with one. */
const UNDER_WAY = 4;

/** The factors of an update of low rank; undefined where the formula is another one, or its rank is high. */
export async function lowRankFactors(weight: WeightToFold): Promise<Factors | undefined> {
  const { task, base, evaluator, rounded } = weight;
  if (base.dtype !== 'float32' || rounded || base.dims.length !== 2) return undefined;
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
  const { data, dtype } = weight.base;
  const { columns } = factors;
  const loaded = kernel.load(factors);
  try {
    for await (const { row, count, updated } of ahead(
      weight.blocks(BLOCK_ELEMENTS),
      UNDER_WAY,
      async (rows) => ({
        ...rows,
        updated: await kernel.update(loaded, data, rows.row, rows.count),
      }),
    )) {
      const { bytes, sums } = updated;
      if (Number.isFinite(sums.base + sums.delta)) meter.addSums(count * columns, sums);
      // Some number is not finite, or its square is not: they are looked at one by one.
      else {
        const block = { dtype, dims: [count, columns], data: bytes };
        weight.measure(meter, { row, count }, block, block);
      }
      yield updated;
    }
  } finally {
    loaded.free();
  }
}
