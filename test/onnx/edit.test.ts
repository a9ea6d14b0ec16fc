/** After a small change the file differs in that place and nowhere else. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Node, Value } from '../../src/graph.js';
import { encodeModel, readModel } from '../../src/onnx/index.js';
import { INLINE_LIMIT, tensorOfBytes } from '../../src/tensor.js';
import { modelFiles } from './support.js';

const files = modelFiles().filter(({ path }) =>
  [...readModel(path).graph.initializers].some((w) => w.tensor!.data.byteLength > INLINE_LIMIT),
);

/** First and last byte at which two buffers of one length differ. */
function difference(a: Uint8Array, b: Uint8Array): [first: number, last: number] {
  const at = [...a.keys()].filter((i) => a[i] !== b[i]);
  return [at[0] ?? -1, at.at(-1) ?? -1];
}

describe.each(files.slice(0, 12))('$name', ({ path }) => {
  const bytes = readFileSync(path);

  it('with another payload in one initializer', () => {
    const model = readModel(path);
    const w = [...model.graph.initializers].filter((x) => x.tensor!.data.byteLength > INLINE_LIMIT).at(-1)!;
    const { dtype, dims, data } = w.tensor!;
    const old = data.read(0, data.byteLength);
    w.tensor = tensorOfBytes(
      dtype,
      dims,
      old.map((byte) => byte ^ 0x55),
    );
    const out = Buffer.from(encodeModel(model));
    if (out.length !== bytes.length) return expectLonger(out);
    const [first, last] = difference(bytes, out);
    expect(last - first + 1).toBe(data.byteLength);
    expect(bytes.subarray(first, last + 1).equals(old)).toBe(true);
  });

  /** External payloads and typed fields move into `raw_data`; all other tensors keep their bytes. */
  function expectLonger(out: Buffer): void {
    const before = readModel(path);
    for (const { tensor } of before.graph.initializers) {
      const { data } = tensor!;
      if (data.inline === undefined) continue;
      expect(out.includes(Buffer.from(data.inline))).toBe(true);
    }
  }

  it('with one more node', () => {
    const model = readModel(path);
    const [slot] = model.graph.outputs;
    const made = new Node({ op: 'Neg', inputs: [slot!.value], outputs: [new Value({ hint: 'negated' })] });
    made.provenance = 'test';
    model.graph.insertAfter(model.graph.lastNode!, made);
    const out = Buffer.from(encodeModel(model));
    const common = (at: (i: number) => boolean): number => {
      let count = 0;
      while (count < bytes.length && at(count)) count++;
      return count;
    };
    const front = common((i) => bytes[i] === out[i]);
    const tail = common((i) => bytes.at(-1 - i) === out.at(-1 - i));
    // In front stays all but the length of the graph (at most 5 bytes), then comes the node, then all that followed.
    expect(out.length - bytes.length).toBeLessThan(120);
    expect(out.length - tail).toBeLessThan(out.indexOf('negated') + 64);
    expect(out.includes(bytes.subarray(front + 5, bytes.length - tail))).toBe(true);
  });
});
