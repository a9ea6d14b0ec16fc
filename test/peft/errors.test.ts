/** Folders that are incomplete, of another kind or of another model: what is wrong, where, and what to do. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readAdapter } from '../../runtime/adapter-file.js';
import { readPeft } from '../../runtime/peft/read.js';
import { readSafetensors, writeSafetensors } from '../../runtime/safetensors.js';
import { readModel } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import { tensorOfBytes } from '../../src/tensor.js';
import { modelFixture } from '../helpers/fixtures.js';
import { peftFolder } from './folders.js';

const WEIGHTS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
const QUERY = 'base_model.model.model.layers.0.self_attn.q_proj';

let folder: string;
let serial = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-errors-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A copy of a folder that may be changed. */
function copy(name = 'llama-lora'): string {
  const path = join(folder, `${serial++}`);
  cpSync(peftFolder(name), path, { recursive: true });
  return path;
}

async function withTensors(change: (tensors: Map<string, Tensor>) => void, name?: string): Promise<string> {
  const path = copy(name);
  const tensors = new Map(readSafetensors(join(path, WEIGHTS)).tensors);
  const inMemory = new Map(
    [...tensors].map(([key, { dtype, dims, data }]) => [
      key,
      tensorOfBytes(dtype, dims, data.read(0, data.byteLength).slice()),
    ]),
  );
  change(inMemory);
  await writeSafetensors(join(path, WEIGHTS), inMemory, { force: true });
  return path;
}

function withConfig(fields: Readonly<Record<string, unknown>>, name?: string): string {
  const path = copy(name);
  const config = JSON.parse(readFileSync(join(path, CONFIG), 'utf8')) as object;
  writeFileSync(join(path, CONFIG), JSON.stringify({ ...config, ...fields }));
  return path;
}

const base = () => readModel(modelFixture('llama.dynamo.dynamic').path);

async function refusal(path: string): Promise<{ code: string; message: string }> {
  try {
    await readPeft(path, { base: base() });
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('it was read');
}

describe('a folder', () => {
  it('without a half of a pair', async () => {
    const path = await withTensors((tensors) => tensors.delete(`${QUERY}.lora_B.weight`));
    const { code, message } = await refusal(path);
    expect(code).toBe('E_INVALID_DATA');
    expect(message).toContain("lacks 'lora_B.weight' of model.layers.0.self_attn.q_proj");
  });

  it('with a tensor that belongs to nothing', async () => {
    const path = await withTensors((tensors) =>
      tensors.set(`${QUERY}.lora_C.weight`, tensors.get(`${QUERY}.lora_A.weight`)!),
    );
    const { code, message } = await refusal(path);
    expect(code).toBe('E_NO_MATCH');
    expect(message).toContain("'model.layers.0.self_attn.q_proj.lora_C'");
  });

  it('with a module that the model lacks', async () => {
    const path = await withTensors((tensors) => {
      for (const part of ['lora_A', 'lora_B'])
        tensors.set(
          `base_model.model.model.layers.7.self_attn.q_proj.${part}.weight`,
          tensors.get(`${QUERY}.${part}.weight`)!,
        );
    });
    const { code, message } = await refusal(path);
    expect(code).toBe('E_NO_MATCH');
    expect(message).toContain("'model.layers.7.self_attn.q_proj'");
  });

  it('with a tensor of another size', async () => {
    const path = await withTensors((tensors) => {
      const { dtype, data } = tensors.get(`${QUERY}.lora_A.weight`)!;
      tensors.set(`${QUERY}.lora_A.weight`, tensorOfBytes(dtype, [8, 16], data.read(0, data.byteLength)));
    });
    const { code, message } = await refusal(path);
    expect(code).toBe('E_NO_MATCH');
    expect(message).toContain("the model has it, but 'lora_A.weight' is [8, 16] and it takes [4, 32]");
  });

  it('whose configuration says another rank', async () => {
    const { code, message } = await refusal(withConfig({ r: 5 }));
    expect(code).toBe('E_NO_MATCH');
    expect(message).toContain("'lora_A.weight' is [4, 32] and it takes [5, 32]");
  });

  it('with a bias of B that the configuration does not call for is read with it', async () => {
    const path = await withTensors((tensors) =>
      tensors.set(`${QUERY}.lora_B.bias`, tensorOfBytes('float32', [32], new Uint8Array(128))),
    );
    const { record } = await readPeft(path, { base: base() });
    expect(Object.keys(record.sites[0]!.params)).toContain('shift');
  });

  it('with factors of a 1 × 1 convolution is read like one of a linear', async () => {
    const path = await withTensors((tensors) => {
      for (const [key, { dtype, dims, data }] of tensors)
        tensors.set(key, tensorOfBytes(dtype, [...dims, 1, 1], data.read(0, data.byteLength)));
    });
    const [convolved, plain] = await Promise.all(
      [path, peftFolder('llama-lora')].map((one) => readPeft(one, { base: base() })),
    );
    expect(convolved!.record).toEqual(plain!.record);
    for (const [key, { dims, data }] of plain!.tensors) {
      const same = convolved!.tensors.get(key)!;
      expect(same.dims).toEqual(dims);
      expect(Buffer.compare(same.data.read(0, data.byteLength), data.read(0, data.byteLength))).toBe(0);
    }
  });

  it('in bfloat16 is read with its bits', async () => {
    const path = await withTensors((tensors) => {
      for (const [key, { dims, data }] of tensors) {
        const wide = new Uint32Array(data.read(0, data.byteLength).slice().buffer);
        const halves = Uint16Array.from(wide, (bits) => bits >>> 16);
        tensors.set(key, tensorOfBytes('bfloat16', dims, new Uint8Array(halves.buffer)));
      }
    });
    const { record, tensors } = await readPeft(path, { base: base() });
    const { key, shape } = record.sites[0]!.params.A!;
    expect(tensors.get(key)).toMatchObject({ dtype: 'bfloat16', dims: shape });
    const first = readSafetensors(join(path, WEIGHTS)).tensors.get(`${QUERY}.lora_A.weight`)!;
    const bits = (tensor: Tensor) =>
      new Uint16Array(tensor.data.read(0, tensor.data.byteLength).slice().buffer);
    const [rows, columns] = first.dims as [number, number];
    const expected = Array.from(
      { length: rows * columns },
      (_, i) => bits(first)[(i % rows) * columns + Math.floor(i / rows)],
    );
    expect([...bits(tensors.get(key)!)]).toEqual(expected);
  });

  it('of pickles says how to convert them', async () => {
    const path = copy();
    rmSync(join(path, WEIGHTS));
    writeFileSync(join(path, 'adapter_model.bin'), 'x');
    const { code, message } = await refusal(path);
    expect(code).toBe('E_UNSUPPORTED');
    expect(message).toContain('save_file');
  });

  it('without a configuration names the adapters inside it', async () => {
    const path = join(folder, `${serial++}`);
    cpSync(peftFolder('llama-lora'), join(path, 'second'), { recursive: true });
    const { code, message } = await refusal(path);
    expect(code).toBe('E_INVALID_DATA');
    expect(message).toContain(join(path, 'second'));
  });

  it('is read for a base alone', async () => {
    await expect(readAdapter(peftFolder('llama-lora'))).rejects.toMatchObject({ code: 'E_USAGE' });
  });

  it.each([
    [{ init_lora_weights: 'pissa_niter_4' }, 'path_initial_model_for_weight_conversion'],
    [{ init_lora_weights: 'pissa_niter_4' }, 'random numbers'],
    [{ init_lora_weights: 'corda' }, 'activations over data'],
    [{ init_lora_weights: 'lora_ga' }, 'gradients over data'],
    [{ init_lora_weights: 'loftq' }, 'bitsandbytes'],
    [{ init_lora_weights: 'pissa', use_qalora: true }, 'use_qalora put other factors'],
    [{ alora_invocation_tokens: [1, 2] }, 'aLoRA'],
    [{ target_parameters: ['experts.down'], rank_pattern: { experts: 2 } }, 'experts'],
    [{ layer_replication: [[0, 2]] }, 'replicates'],
    [{ peft_type: 'FOURIERFT', random_loc_seed: null }, 'without a seed'],
    [{ peft_type: 'UNILORA' }, 'save_indices=True'],
    [{ peft_type: 'SUPERTUNING', save_precomputed_indices: false }, 'save_precomputed_indices=True'],
    [{ peft_type: 'WAVEFT', random_loc_seed: 1, wavelet_family: 'coif2' }, "'coif2'"],
    [{ peft_type: 'PVERA', sample_at_inference: true }, 'sample_at_inference'],
    [{ peft_type: 'PEANUT', act_fn: 'prelu' }, "'prelu'"],
    [{ peft_type: 'MULTITASK_PROMPT_TUNING', num_tasks: 2 }, 'one task'],
    [{ peft_type: 'PSOFT' }, 'signs'],
    [{ peft_type: 'TINYLORA', save_projection: false }, 'save_projection=True'],
    [{ peft_type: 'FROD', save_projection: false }, 'save_projection=True'],
    [{ peft_type: 'XLORA' }, 'depends on the input'],
    [{ peft_type: 'NOVEL' }, 'What is read: LORA'],
  ])('that is not read says why: %j', async (fields, reason) => {
    const { code, message } = await refusal(withConfig(fields));
    expect(code).toBe('E_UNSUPPORTED');
    expect(message).toContain(reason);
  });

  it('whose shared matrices were not saved', async () => {
    const path = await withTensors((tensors) => tensors.delete('base_model.vera_A'), 'llama-vera');
    const { code, message } = await refusal(path);
    expect(code).toBe('E_INVALID_DATA');
    expect(message).toContain('save_projection=True');
  });

  it('in shards is read like a whole one', async () => {
    const path = copy();
    const { tensors } = readSafetensors(join(path, WEIGHTS));
    const map: Record<string, string> = {};
    for (const [part, of] of ['q_proj', 'v_proj'].entries()) {
      const own = new Map([...tensors].filter(([key]) => key.includes(of)));
      const file = `adapter_model-0000${part + 1}-of-00002.safetensors`;
      await writeSafetensors(join(path, file), own);
      for (const key of own.keys()) map[key] = file;
    }
    writeFileSync(join(path, `${WEIGHTS}.index.json`), JSON.stringify({ metadata: {}, weight_map: map }));
    rmSync(join(path, WEIGHTS));
    const sharded = await readPeft(path, { base: base() });
    const whole = await readPeft(peftFolder('llama-lora'), { base: base() });
    expect(sharded.record).toEqual(whole.record);
    for (const [key, { data }] of whole.tensors) {
      const same = sharded.tensors.get(key)!.data;
      expect(Buffer.compare(same.read(0, same.byteLength), data.read(0, data.byteLength)), key).toBe(0);
    }
  });
});
