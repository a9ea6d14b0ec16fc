/**
 * The function behind `LowRankKernel`: `w += L R` in one pass over rows that lie in memory, with the sums of the pass.
 *
 * A tile is four rows of eight columns: its sums stay in registers while the loop runs along the rank, and each number of
 * a factor that is loaded serves several of them. What does not fill a tile is done by tiles of one row, or one column.
 */
import type { Sums } from '../fidelity.js';
import {
  type Code,
  FunctionWriter,
  f32x4,
  f64x2,
  I32,
  i32,
  i32x4,
  type Local,
  V128,
  v128,
  whileLoop,
} from './assembler.js';
import { MAX_PAGES } from './engine.js';
import { type KernelDType, STORAGES, type Storage } from './storage.js';

type Parameters = readonly [Local, Local, Local, Local, Local, Local, Local, Local];

/** Rows of a tile. Rows in fours are done quickest: those that are left over go one by one, each through all of the right factor. */
export const TILE_ROWS = 4;
const FLOAT = 4;
/** Sums of a pass, 16 bytes each: pairs of float64 to be added up, and for `changed` four int32. */
const SUMS = ['base', 'delta', 'changed', 'lost'] as const;
export const SUMS_BYTES = 16 * SUMS.length;

/** What a pass over `count` numbers has left at the address of its sums. */
export function readSums({ buffer, byteOffset }: Uint8Array, count: number): Sums {
  const at = (sum: (typeof SUMS)[number]): number => byteOffset + 16 * SUMS.indexOf(sum);
  const added = (numbers: Float64Array | Int32Array): number => {
    let total = 0;
    for (const number of numbers) total += number;
    return total;
  };
  const pair = (sum: 'base' | 'delta' | 'lost'): number => added(new Float64Array(buffer, at(sum), 2));
  return {
    base: pair('base'),
    delta: pair('delta'),
    lost: pair('lost'),
    unchanged: count - added(new Int32Array(buffer, at('changed'), 4)),
  };
}

/** How wide a tile is: some vectors of four numbers, or a single number. */
interface Width {
  readonly columns: number;
  readonly vectors: number;
  /** Of the right factor, which is of floats. */
  loadFloats(address: Code, vector: number): Code;
  load(storage: Storage, address: Code, vector: number): Code;
  store(storage: Storage, address: Code, vector: number, codes: Code): Code;
}

const WIDE: Width = {
  columns: 8,
  vectors: 2,
  loadFloats: (address, vector) => v128.load(address, 4 * FLOAT * vector),
  load: (storage, address, vector) => storage.load(address, 4 * storage.bytes * vector),
  store: (storage, address, vector, codes) => storage.store(address, 4 * storage.bytes * vector, codes),
};

const SINGLE: Width = {
  columns: 1,
  vectors: 1,
  loadFloats: (address) => v128.loadOne(address, 0),
  load: (storage, address) => storage.loadOne(address, 0),
  store: (storage, address, _vector, codes) => storage.storeOne(address, 0, codes),
};

/**
 * Parameters, all bytes or counts: address of the rows of `w` [rows, columns], `rows`, `columns`, address of the left
 * factor at the first of these rows (stored [rank, all rows]), bytes from one row of it to the next, `rank`, address of
 * the right factor [rank, columns], and where the sums go (see `SUMS`).
 */
export function lowRankProgram(dtype: KernelDType): Uint8Array {
  const storage = STORAGES[dtype];
  const write = new FunctionWriter(8);
  const [w, rows, columns, left, leftStride, rank, right, sums] = write.params as Parameters;
  const integer = () => write.local(I32);
  const vector = () => write.local(V128);
  const conversion = storage.conversion?.(write);
  const [rowBytes, rightRowBytes, column, step] = [integer(), integer(), integer(), integer()];
  const [leftAt, rightAt] = [integer(), integer()];
  const rowAt = Array.from({ length: TILE_ROWS }, integer);
  const tile = Array.from({ length: TILE_ROWS }, () => Array.from({ length: WIDE.vectors }, vector));
  const rightNow = Array.from({ length: WIDE.vectors }, vector);
  const [leftNow, codes, before] = [vector(), vector(), vector()];
  const [after, stored, difference] = [vector(), vector(), vector()];
  const [baseFloats, deltaFloats, lostFloats] = [vector(), vector(), vector()];
  const totals = { base: vector(), delta: vector(), changed: vector(), lost: vector() };

  const add = (local: Local, value: Code): Code => local.set(i32.add(local.get, value));
  const addBytes = (local: Local, bytes: number): Code => add(local, i32.const(bytes));
  /** Floats are added up in tiles alone, and tiles in float64. */
  const widened = (total: Local, floats: Local): Code =>
    total.set(
      f64x2.add(
        total.get,
        f64x2.add(f64x2.ofLowerFloats(floats.get), f64x2.ofLowerFloats(v128.upperHalf(floats.get))),
      ),
    );

  const square = (total: Local, value: Local): Code =>
    total.set(f32x4.add(total.get, f32x4.mul(value.get, value.get)));

  /** Numbers of a cell before and after, and what of them is stored. */
  const cellCode = (cell: Local, width: Width, address: Code, v: number): Code => {
    const kept = conversion === undefined ? after : stored;
    return [
      codes.set(width.load(storage, address, v)),
      conversion?.widen(codes, before) ?? before.set(codes.get),
      after.set(f32x4.add(before.get, cell.get)),
      conversion?.narrow(after, codes) ?? codes.set(after.get),
      width.store(storage, address, v, codes.get),
      square(baseFloats, before),
      difference.set(f32x4.sub(after.get, before.get)),
      square(deltaFloats, difference),
      conversion === undefined
        ? []
        : [
            conversion.widen(codes, stored),
            difference.set(f32x4.sub(stored.get, after.get)),
            square(lostFloats, difference),
          ],
      // A comparison that holds is −1.
      totals.changed.set(i32x4.sub(totals.changed.get, f32x4.differ(kept.get, before.get))),
    ];
  };

  const tileCode = (height: number, width: Width): Code => {
    const cells = tile.slice(0, height).map((cells) => cells.slice(0, width.vectors));
    return [
      cells.flat().map((cell) => cell.set(v128.zero)),
      leftAt.set(left.get),
      rightAt.set(i32.add(right.get, i32.mul(column.get, i32.const(FLOAT)))),
      step.set(i32.const(0)),
      whileLoop(i32.less(step.get, rank.get), [
        rightNow.slice(0, width.vectors).map((r, v) => r.set(width.loadFloats(rightAt.get, v))),
        cells.map((row, r) => [
          leftNow.set(v128.splat(leftAt.get, FLOAT * r)),
          row.map((cell, v) =>
            cell.set(f32x4.add(cell.get, f32x4.mul(leftNow.get, (rightNow[v] as Local).get))),
          ),
        ]),
        add(leftAt, leftStride.get),
        add(rightAt, rightRowBytes.get),
        addBytes(step, 1),
      ]),
      baseFloats.set(v128.zero),
      deltaFloats.set(v128.zero),
      lostFloats.set(v128.zero),
      cells.map((row, r) => row.map((cell, v) => cellCode(cell, width, (rowAt[r] as Local).get, v))),
      widened(totals.base, baseFloats),
      widened(totals.delta, deltaFloats),
      conversion === undefined ? [] : widened(totals.lost, lostFloats),
      rowAt.slice(0, height).map((row) => addBytes(row, storage.bytes * width.columns)),
      addBytes(column, width.columns),
    ];
  };

  const stripCode = (height: number): Code =>
    whileLoop(i32.less(i32.const(height - 1), rows.get), [
      column.set(i32.const(0)),
      rowAt
        .slice(0, height)
        .map((row, r) => row.set(r === 0 ? w.get : i32.add((rowAt[r - 1] as Local).get, rowBytes.get))),
      [WIDE, SINGLE].map((width) =>
        whileLoop(
          i32.less(i32.const(width.columns - 1), i32.sub(columns.get, column.get)),
          tileCode(height, width),
        ),
      ),
      add(w, i32.mul(rowBytes.get, i32.const(height))),
      addBytes(left, FLOAT * height),
      addBytes(rows, -height),
    ]);

  const body = [
    rowBytes.set(i32.mul(columns.get, i32.const(storage.bytes))),
    rightRowBytes.set(i32.mul(columns.get, i32.const(FLOAT))),
    SUMS.map((sum) => totals[sum].set(v128.zero)),
    stripCode(TILE_ROWS),
    stripCode(1),
    SUMS.map((sum, index) => v128.store(sums.get, 16 * index, totals[sum].get)),
  ];
  return write.module(body, MAX_PAGES);
}
