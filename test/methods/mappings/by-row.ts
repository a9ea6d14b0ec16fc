/** Adapters of one batch, a row each: peft keeps them under their names, and so does a model that trains them together. */
import { NO_ADAPTER } from '../../../passes/combine/combine.js';
import type { AdapterFile } from '../../../runtime/adapter-file.js';
import { combine } from '../../../runtime/library/combine.js';
import { insert } from '../../../runtime/library/insert.js';
import { readModel } from '../../../src/onnx/index.js';
import { randomParameters } from '../../helpers/adapters.js';
import { int64 } from '../../targets/driver.js';
import { type MethodMapping, type Reference, transposed } from '../reference-support.js';

/** Settings as recorded. */
interface Recorded {
  readonly adapters: Readonly<
    Record<string, { readonly rank: number; readonly alpha: number; readonly targets: readonly string[] }>
  >;
  /** The adapter of each row of every batch. */
  readonly rows: readonly string[];
}

const recorded = ({ config }: Reference) => config as unknown as Recorded;

/** The recorded adapters with numbers of no meaning. */
export async function adaptersOf(
  reference: Reference,
  path: string,
): Promise<Readonly<Record<string, AdapterFile>>> {
  const files: Record<string, AdapterFile> = {};
  for (const [name, { rank, alpha, targets }] of Object.entries(recorded(reference).adapters)) {
    const entry = { method: 'lora', config: { rank, alpha }, targeting: { targets: [...targets] } };
    const { record } = await insert(readModel(path), { entries: [entry] });
    files[name] = { record, tensors: randomParameters(record), digest: name };
  }
  return files;
}

/** What the input holds that names the adapters. */
export function choiceOf(reference: Reference) {
  const { adapters, rows } = recorded(reference);
  const names = [NO_ADAPTER, ...Object.keys(adapters)];
  return int64(rows.map((name) => (name === '__base__' ? 0 : names.indexOf(name))));
}

export const byRow: Readonly<Record<string, MethodMapping>> = {
  'lora-by-row': {
    async build(reference, path) {
      const adapters = await adaptersOf(reference, path);
      return (await combine({ model: path, adapters, by: 'row', trainable: true })).model;
    },
    feeds: (reference) => ({ adapter: choiceOf(reference) }),
    // lora_A.<adapter>.weight
    translate: (tensors) =>
      new Map(
        tensors.map(({ param: { path, role, shape }, data }) => {
          const [factor, adapter] = role.split('.');
          return [`${adapter}.${path}.${factor}`, transposed(data, shape)];
        }),
      ),
  },
};
