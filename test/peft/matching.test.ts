/** Modules of a folder whose names are not those of the graph: placed where structure or numbers say so, and never guessed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findSites, payloadOf } from '../../passes/sites/index.js';
import { storedOf } from '../../passes/sites/kinds/index.js';
import { modulePath } from '../../passes/sites/targeting.js';
import { fold } from '../../runtime/fold/fold.js';
import { readPeft } from '../../runtime/peft/read.js';
import { writeSafetensors } from '../../runtime/safetensors.js';
import { walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { readModel, writeModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { modelFixture } from '../helpers/fixtures.js';
import { expectedLogits, firstLogits, peftCases, peftFolder, relativeError } from './folders.js';

const TOLERANCE = 1e-5;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-matching-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The model with every name but those of inputs and outputs changed, and without metadata. */
function renamed(name: string, rename: (text: string) => string): Model {
  const model = readModel(modelFixture(name).path);
  for (const graph of walkGraphs(model.graph)) {
    const kept = new Set([...graph.inputs, ...graph.outputs]);
    for (const value of graph.initializers)
      if (!kept.has(value) && value.name !== undefined) value.name = rename(value.name);
    for (const node of graph.nodes()) {
      if (node.name !== undefined) node.name = rename(node.name);
      node.metadata.clear();
      for (const value of node.outputs)
        if (value?.name !== undefined && !kept.has(value)) value.name = rename(value.name);
    }
  }
  return model;
}

let serial = 0;
const anonymous = (name: string) => renamed(name, () => `v${serial++}`);

async function foldedError(model: Model, name: string, peft: Parameters<typeof fold>[0]['peft'] = {}) {
  const one = peftCases((each) => each.name === name)[0]!;
  const base = join(folder, `base${serial++}.onnx`);
  await writeModel(model, base);
  const out = join(folder, `merged${serial++}.onnx`);
  await fold({ model: base, adapter: peftFolder(name), out, peft });
  const fixture = modelFixture(`${one.architecture}.ts.static`);
  return relativeError(await firstLogits(readModel(out), fixture), expectedLogits(one));
}

describe('modules of a folder', () => {
  it('match below another beginning', async () => {
    const model = renamed('llama.ts.static', (text) =>
      text.replaceAll('/model/', '/').replaceAll('model.', ''),
    );
    expect(await foldedError(model, 'llama-lora')).toBeLessThanOrEqual(TOLERANCE);
  });

  it('match in another dialect', async () => {
    const model = renamed('llama.ts.static', (text) => text.replaceAll('self_attn', 'attn'));
    expect(await foldedError(model, 'llama-lora')).toBeLessThanOrEqual(TOLERANCE);
  });

  it.each(['llama-lora', 'llama-ia3', 'llama-dora'])(
    'match by role and order where nothing has a name: %s',
    async (name) => {
      expect(await foldedError(anonymous('llama.ts.static'), name)).toBeLessThanOrEqual(TOLERANCE);
    },
  );

  it('match by the numbers of the base', async () => {
    const weights = join(folder, 'model.safetensors');
    await writeSafetensors(weights, baseWeights());
    // Embeddings have no role.
    const error = await foldedError(anonymous('llama.ts.static'), 'llama-lora-embedding', {
      baseWeights: weights,
    });
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });

  it('match by a map, of whole paths or of beginnings', async () => {
    const model = renamed('llama.ts.static', (text) =>
      text.replaceAll('layers', 'blocks').replaceAll('q_proj', 'wq'),
    );
    const error = await foldedError(model, 'llama-lora', {
      map: {
        'model.layers': 'model.blocks',
        'model.layers.0.self_attn.q_proj': 'model.blocks.0.self_attn.wq',
        'model.layers.1.self_attn.q_proj': 'model.blocks.1.self_attn.wq',
      },
    });
    expect(error).toBeLessThanOrEqual(TOLERANCE);
  });

  it('are not guessed: an adapter of another model is an error that lists candidates', async () => {
    const base = readModel(modelFixture('bert.ts.static').path);
    await expect(readPeft(peftFolder('llama-lora'), { base })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
      message: expect.stringMatching(/model\.layers\.0\.self_attn\.q_proj.*of its sizes are '.*--map/s),
    });
  });

  it('are not guessed: two parts of a model with the same names are an ambiguity', async () => {
    const base = anonymous('llama.ts.static');
    await expect(readPeft(peftFolder('llama-lora-embedding'), { base })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
    });
  });

  it('that a map sends nowhere are an error', async () => {
    const base = readModel(modelFixture('llama.ts.static').path);
    const map = { 'model.layers.0': 'model.layers.7' };
    await expect(readPeft(peftFolder('llama-lora'), { base, map })).rejects.toMatchObject({
      code: 'E_NO_MATCH',
      message: expect.stringContaining('model.layers.7'),
    });
  });
});

/** Weights of the base by the names of transformers. */
function baseWeights() {
  const weights = new Map<string, Tensor>();
  for (const site of findSites(readModel(modelFixture('llama.ts.static').path))) {
    const stored = storedOf(site).w;
    const tensor = stored === undefined ? undefined : payloadOf(stored.value);
    if (tensor !== undefined) weights.set(`${modulePath(site)}.weight`, tensor);
  }
  return weights;
}
