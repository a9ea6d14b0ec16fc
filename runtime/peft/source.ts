/** A folder that PEFT saved: its configuration and its tensors, whatever they mean. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { PeftConfig } from '../../passes/methods/contract/peft-format.js';
import { fail } from '../../src/errors.js';
import { reason } from '../../src/onnx/source.js';
import type { Tensor } from '../../src/tensor.js';
import { digestBytes, digestFile } from '../digest.js';
import { readSafetensors } from '../safetensors.js';

export const CONFIG_FILE = 'adapter_config.json';
export const WEIGHTS_FILE = 'adapter_model.safetensors';
const INDEX_FILE = `${WEIGHTS_FILE}.index.json`;
const PICKLE_FILE = 'adapter_model.bin';

export interface PeftFolder {
  readonly path: string;
  readonly config: PeftConfig;
  /** By PEFT's keys. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Of the configuration and the files with the tensors. */
  readonly digest: string;
}

/** Whether a path is a folder: what PEFT saves, where our adapters are files. */
export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** The folder that PEFT saved, where a file in it was meant to stand for it. */
export function folderAround(path: string): string | undefined {
  const within = [CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, PICKLE_FILE].includes(basename(path));
  return within && existsSync(join(dirname(path), CONFIG_FILE)) ? dirname(path) : undefined;
}

/** Throws E_INVALID_DATA where a file is missing or malformed, E_UNSUPPORTED for weights that only Python reads. */
export async function readPeftFolder(path: string): Promise<PeftFolder> {
  const config = readConfig(path);
  const file = weightsFile(path);
  const { tensors } = readSafetensors(join(path, file));
  const digests = [await digestFile(join(path, CONFIG_FILE))];
  for (const name of [file, ...shardsOf(join(path, file))]) digests.push(await digestFile(join(path, name)));
  return { path, config, tensors, digest: digestBytes(digests.join('\n')) };
}

/** The first of many. */
function listed(paths: readonly string[], most = 5): string {
  const more = paths.length > most ? ` and ${paths.length - most} more` : '';
  return `${paths.slice(0, most).join(', ')}${more}`;
}

function readConfig(path: string): PeftConfig {
  const file = join(path, CONFIG_FILE);
  if (!existsSync(file)) {
    const inner = readdirSync(path).filter((name) => existsSync(join(path, name, CONFIG_FILE)));
    return fail('E_INVALID_DATA', {
      message: `The folder has no ${CONFIG_FILE}`,
      where: path,
      remedy:
        inner.length === 0
          ? 'Pass the folder that save_pretrained wrote, or an adapter.safetensors of a training run'
          : `Pass one of the adapters inside: ${listed(inner.map((name) => join(path, name)))}`,
    });
  }
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    return fail('E_INVALID_DATA', { message: `Not valid JSON: ${reason(cause)}`, where: file, cause });
  }
  if (typeof config !== 'object' || config === null || typeof (config as PeftConfig).peft_type !== 'string')
    return fail('E_INVALID_DATA', {
      message: 'The configuration names no peft_type',
      where: file,
      remedy: 'Save the adapter again with PEFT; folders of other libraries have another format',
    });
  return config as PeftConfig;
}

function weightsFile(path: string): string {
  const found = [WEIGHTS_FILE, INDEX_FILE].find((name) => existsSync(join(path, name)));
  if (found !== undefined) return found;
  if (existsSync(join(path, PICKLE_FILE)))
    return fail('E_UNSUPPORTED', {
      message: `${PICKLE_FILE} is a pickle, which only Python reads and which may run code`,
      where: path,
      remedy: `Convert it once: python -c "import torch; from safetensors.torch import save_file; save_file({k: v.contiguous() for k, v in torch.load('${PICKLE_FILE}', map_location='cpu', weights_only=True).items()}, '${WEIGHTS_FILE}')"`,
    });
  return fail('E_INVALID_DATA', {
    message: `The folder has no ${WEIGHTS_FILE}`,
    where: path,
    remedy: 'Pass the whole folder that save_pretrained wrote',
  });
}

/** Files that a shard index names. */
function shardsOf(file: string): string[] {
  if (!file.endsWith('.json')) return [];
  const { weight_map: map } = JSON.parse(readFileSync(file, 'utf8')) as {
    weight_map: Record<string, string>;
  };
  return [...new Set(Object.values(map))].sort();
}
