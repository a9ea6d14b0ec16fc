/** Blocks of a folded weight, computed by its formula in ONNX Runtime. */
import { ahead } from '../../src/ahead.js';
import type { Tensor } from '../../src/tensor.js';
import { countOf } from '../../src/types.js';
import { type HostTensor, numbersOf } from '../host-tensor.js';
import type { FidelityMeter } from './fidelity.js';
import type { Piece } from './pieces.js';
import { type Floats, roundTo } from './rounding.js';
import { sliceAxis } from './slice.js';
import type { BlockRows, WeightToFold } from './weight.js';

/** Elements of a block: it and what is made of it fit a processor's cache. */
const BLOCK_ELEMENTS = 1 << 18;
/** Blocks under way: one is computed while another one is looked at. */
const UNDER_WAY = 2;

interface Block extends BlockRows {
  readonly computed: HostTensor;
  /** What is stored; the computed numbers themselves where nothing is rounded. */
  readonly stored: HostTensor;
}

/** Keys of resident tensors are of one evaluation alone. */
let serial = 0;

/** The weight in blocks of rows, or whole where its formula cannot be cut. */
export async function* formulaBlocks(weight: WeightToFold, meter: FidelityMeter): AsyncGenerator<Piece> {
  const { task, base, evaluator } = weight;
  const operands = await weight.operands();
  const whole = new Map([...operands].filter(([input]) => task.blocks?.get(input) === undefined));
  // What every block needs whole crosses to the other thread once.
  const keys = new Map([...whole.keys()].map((input) => [input, `${serial++} ${input}`]));
  await evaluator.put(Object.fromEntries([...whole].map(([input, t]) => [keys.get(input) as string, t])));
  const resident = Object.fromEntries(keys);
  const cut = new Map([...operands].filter(([input]) => !whole.has(input)));
  const blocks =
    task.blocks === undefined ? [{ row: 0, count: base.dims[0] ?? 1 }] : weight.blocks(rowsOfBlock(base));
  try {
    for await (const { computed, stored, ...rows } of ahead(blocks, UNDER_WAY, (rows) =>
      compute(weight, rows, cut, resident),
    )) {
      weight.measure(meter, rows, computed, stored);
      yield { bytes: stored.data, free: () => evaluator.lanes.free(stored.data) };
    }
  } finally {
    await evaluator.drop([...keys.values()]);
  }
}

function rowsOfBlock({ dims: [, ...rest] }: Tensor): number {
  return Math.max(1, Math.floor(BLOCK_ELEMENTS / countOf(rest)));
}

async function compute(
  weight: WeightToFold,
  rows: BlockRows,
  operands: ReadonlyMap<string, HostTensor>,
  resident: Readonly<Record<string, string>>,
): Promise<Block> {
  const { task, base, evaluator, rounded } = weight;
  const feeds: Record<string, HostTensor> = {};
  if (task.formula.graph.inputs.some(({ name }) => name === 'w')) {
    const original = weight.rows(rows);
    feeds.w = rounded ? weight.copy(original) : original;
    if (rounded) evaluator.lanes.free(original.data);
  }
  for (const [input, operand] of operands)
    feeds[input] = sliceAxis(operand, task.blocks?.get(input) ?? 0, rows.row, rows.count);
  const computed = await evaluator.run(task.formula, feeds, resident);
  if (!rounded) return { ...rows, computed, stored: computed };
  const data = roundTo(base.dtype, numbersOf(computed) as Floats);
  return { ...rows, computed, stored: { dtype: base.dtype, dims: computed.dims, data } };
}
