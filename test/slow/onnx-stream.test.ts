/** Saving does not hold payloads in memory: 300 MB through a process that stays small. Runs on the built package. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const dist = join(import.meta.dirname, '../../dist/src');
const folder = mkdtempSync(join(tmpdir(), 'peft-compile-slow-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TENSORS = 12;
const BYTES = 25 << 20;

/** Runs a script in its own process; gives back its peak memory beyond that at its start, in MB. */
function peak(script: string): number {
  const source = `
    const { readModel, writeModel } = await import(${JSON.stringify(join(dist, 'onnx/index.js'))});
    const { Graph, Value, Node } = await import(${JSON.stringify(join(dist, 'graph.js'))});
    const { Model } = await import(${JSON.stringify(join(dist, 'model.js'))});
    const folder = ${JSON.stringify(folder)};
    const start = process.resourceUsage().maxRSS;
    ${script}
    console.log((process.resourceUsage().maxRSS - start) / 1024);`;
  return Number(execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' }));
}

describe('a model of 300 MB', () => {
  it('is made', () => {
    peak(`
      const graph = new Graph();
      let x = graph.addInput(new Value({ name: 'x', type: { kind: 'tensor', dtype: 'float32', shape: [1024] } }));
      const block = new Uint8Array(1 << 20).map((_, i) => (i * 2654435761) >>> 24);
      for (let i = 0; i < ${TENSORS}; i++) {
        const data = { byteLength: ${BYTES}, read: (_, length) => block.subarray(0, length) };
        const w = new Value({ name: 'w' + i, tensor: { dtype: 'float32', dims: [${BYTES} / 4096, 1024], data } });
        graph.addInitializer(w);
        const y = new Value({ name: 'y' + i });
        graph.append(new Node({ op: 'Add', inputs: [x, w], outputs: [y] }));
        x = y;
      }
      graph.addOutput('y', x);
      const model = new Model(graph);
      model.opsets.set('', 20);
      await writeModel(model, folder + '/inline.onnx');`);
    expect(statSync(join(folder, 'inline.onnx')).size).toBeGreaterThan(TENSORS * BYTES);
  });

  it.each([
    ['inline.onnx', 'keep', 'copy.onnx'],
    ['inline.onnx', 'file', 'external.onnx'],
    ['external.onnx', 'inline', 'again.onnx'],
  ])('%s is saved (%s) in a few MB of memory', (from, externalData, to) => {
    const grown = peak(`
      const model = readModel(folder + '/${from}');
      const [w] = model.graph.initializers;
      if (${JSON.stringify(to)} === 'copy.onnx') w.metadata.set('touched', 'yes');
      await writeModel(model, folder + '/${to}', { externalData: '${externalData}' });`);
    // One buffer of 1 MiB and the code itself; a single tensor of 25 MB in memory would show.
    expect(grown).toBeLessThan(20);
  });

  it('holds the same numbers in every form', () => {
    peak(`
      const sum = (file) => [...readModel(folder + '/' + file).graph.initializers].map((w) => {
        const bytes = w.tensor.data.read(0, w.tensor.data.byteLength);
        let hash = 0;
        for (let i = 0; i < bytes.length; i += 7) hash = (hash * 31 + bytes[i]) >>> 0;
        return hash;
      }).join();
      const sums = new Set(['inline.onnx', 'copy.onnx', 'external.onnx', 'again.onnx'].map(sum));
      if (sums.size !== 1) throw new Error('payloads differ');`);
  });
});
