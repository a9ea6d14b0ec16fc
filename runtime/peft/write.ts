/** An adapter as the folder that PEFT's `PeftModel.from_pretrained` loads. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { AdapterRecord, AdapterSite } from '../../passes/adapter-record.js';
import type { Method } from '../../passes/methods/contract/method.js';
import type { PeftConfig, WrittenModule } from '../../passes/methods/contract/peft-format.js';
import { fail } from '../../src/errors.js';
import { atomicWrite } from '../../src/onnx/index.js';
import type { Tensor } from '../../src/tensor.js';
import type { AdapterFile } from '../adapter.js';
import { loadTensor } from '../host-tensor.js';
import { writeSafetensors } from '../safetensors.js';
import { peftFile } from './file.js';
import { type FormattedMethod, formatOf } from './formats.js';
import { joined, toPeft } from './layout.js';
import { settledConfig } from './settled-config.js';
import { CONFIG_FILE, WEIGHTS_FILE } from './source.js';
import { slicesOf } from './whole.js';

export interface WritePeftOptions {
  readonly force?: boolean;
  /** Name or path of the base, as `from_pretrained` takes it (`base_model_name_or_path`). */
  readonly base?: string;
  /** `CAUSAL_LM`, `SEQ_CLS`, …: which class of PEFT wraps the base. Prompts and prefixes need it. */
  readonly task?: string;
  /** Names in PEFT by module of the graph, or by the beginning of its path. */
  readonly rename?: Readonly<Record<string, string>>;
  /** Weights stored whole are those of Conv1D modules (GPT-2): [in, out]. */
  readonly conv1d?: boolean;
  /** Methods of one's own. */
  readonly methods?: readonly Method[];
}

export interface PeftReport {
  readonly folder: string;
  readonly type: string;
  readonly modules: number;
  readonly tensors: number;
}

interface Part {
  readonly owner: FormattedMethod;
  readonly site: AdapterSite;
  /** In PEFT. */
  readonly path: string;
}

/**
 * Writes `adapter_config.json` and `adapter_model.safetensors`. Tensors keep their bits; only matrices are transposed.
 * @throws E_UNSUPPORTED for methods and settings that PEFT does not have, E_EXISTS.
 */
export async function writePeft(
  adapter: AdapterFile,
  folder: string,
  options: WritePeftOptions = {},
): Promise<PeftReport> {
  const { record } = adapter;
  const parts = partsOf(record, options);
  const main = mainOf(record, parts);
  const own = parts.filter(({ owner }) => owner === main);
  const beside = parts.filter(({ owner }) => owner !== main);
  const wrapped = new Set(own.map(({ path }) => path));
  const tensors = new Map<string, Tensor>();
  if (main.format.whole === undefined) {
    for (const part of own) await addModule(tensors, adapter, part, '', options);
    for (const part of beside)
      await addModule(
        tensors,
        adapter,
        part,
        wrapped.has(part.path) ? 'base_layer.' : (part.owner.format.wrapper ?? ''),
        options,
      );
  } else {
    await addWhole(tensors, adapter, main, own);
    for (const part of beside) await addModule(tensors, adapter, part, '', options, 'base_model.');
  }
  // PEFT follows ties itself, and knows a weight below its own wrapper.
  const named = parts.filter(
    ({ owner, site }) => owner.format.followsTies !== true || site.kind === 'embedding',
  );
  const config = configOf(
    main,
    named.filter(({ owner }) => owner === main),
    named.filter(({ owner, path }) => owner !== main && !wrapped.has(path)),
    options,
  );
  mkdirSync(folder, { recursive: true });
  const force = options.force ?? false;
  const stored = (await main.format.restored?.(peftFile({ config, tensors, path: folder }, []))) ?? tensors;
  await writeSafetensors(join(folder, WEIGHTS_FILE), stored, { metadata: { format: 'pt' }, force });
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  const text = new TextEncoder().encode(`${JSON.stringify(sorted, null, 2)}\n`);
  await atomicWrite(join(folder, CONFIG_FILE), { force }, (sink) => sink.write(text));
  return {
    folder,
    type: String(config.peft_type),
    modules: new Set(parts.map(({ path }) => path)).size,
    tensors: stored.size,
  };
}

/** PEFT has one pair of factors for all experts of a tensor, around the module that holds it. */
function refuseExperts(sites: readonly AdapterSite[]): void {
  const expert = sites.find(({ slice }) => slice !== undefined);
  if (expert !== undefined)
    unsupported(`PEFT has no module '${expert.path}': it is one of several experts in one tensor`);
}

function partsOf(record: AdapterRecord, { rename = {}, methods }: WritePeftOptions): Part[] {
  refuseExperts(record.sites);
  const owners = record.entries.map(({ method }) => formatOf(method, methods));
  // What comes along with other sites (positions) has no tensors.
  return record.sites
    .filter(({ params }) => Object.keys(params).length > 0)
    .map((site) => ({
      owner: owners[site.entry] as FormattedMethod,
      site,
      path: renamed(site.path, rename),
    }));
}

function renamed(path: string, rename: Readonly<Record<string, string>>): string {
  const [best] = Object.keys(rename)
    .filter((from) => path === from || path.startsWith(`${from}.`))
    .sort((a, b) => b.length - a.length);
  if (best === undefined) return path;
  const to = rename[best] as string;
  return to === '' ? path.slice(best.length + 1) : to + path.slice(best.length);
}

/** The method that gives the folder its type; the others accompany it. */
function mainOf(record: AdapterRecord, parts: readonly Part[]): FormattedMethod {
  const owners = [...new Set(parts.map(({ owner }) => owner))];
  const mains = owners.filter(({ format }) => format.accompanies !== true);
  const candidates = mains.length > 0 ? mains : owners.filter(({ format }) => format.types.length > 0);
  const [main] = candidates;
  if (main !== undefined && candidates.length === 1) return main;
  const ids = record.entries.map(({ method }) => method).join(', ');
  return fail('E_UNSUPPORTED', {
    message:
      candidates.length === 0
        ? `PEFT has no adapter of ${ids} alone`
        : `A folder of PEFT holds one method; this adapter has ${ids}`,
    remedy: 'Fold the adapter, or serve it with emit --target adapted',
  });
}

async function addModule(
  tensors: Map<string, Tensor>,
  adapter: AdapterFile,
  { owner: { format }, site, path }: Part,
  wrapper: string,
  { conv1d = false }: WritePeftOptions,
  prefix = 'base_model.model.',
): Promise<void> {
  for (const [role, { key, trainable }] of Object.entries(site.params)) {
    const tensor = tensorOf(adapter, key);
    const own = format.tensors[site.kind as keyof typeof format.tensors]?.[role];
    const shared = format.shared?.[role];
    if (own !== undefined)
      tensors.set(
        `${prefix}${path}.${wrapper}${own.key}`,
        await toPeft(tensor, own, !conv1d || site.window !== undefined, site.window),
      );
    else if (shared !== undefined)
      tensors.set(`base_model.${shared.key}`, await toPeft(tensor, shared, true));
    // What is computed from the base again is not stored.
    else if (trainable) fail('E_UNSUPPORTED', { message: `PEFT has no place for '${role}'`, where: path });
  }
}

async function addWhole(
  tensors: Map<string, Tensor>,
  adapter: AdapterFile,
  { format }: FormattedMethod,
  parts: readonly Part[],
): Promise<void> {
  const { whole } = format;
  if (whole === undefined) return;
  const slices = slicesOf(
    parts.map(({ site }) => ({
      kind: site.kind,
      params: Object.entries(site.params).map(([role, { key, shape }]) => ({ role, key, shape })),
    })),
  );
  const loaded = [];
  for (const { key, slice } of slices)
    loaded.push({ slice, tensor: await loadTensor(tensorOf(adapter, key)) });
  tensors.set(whole.key, joined(loaded, whole));
}

function tensorOf({ tensors }: AdapterFile, key: string): Tensor {
  return (
    tensors.get(key) ??
    fail('E_INVALID_DATA', {
      message: `The adapter lacks tensor '${key}'`,
      remedy: 'Use the file that training wrote',
    })
  );
}

function written(parts: readonly Part[]): WrittenModule[] {
  return parts.map(({ site, path }) => ({
    path,
    settings: site.config,
    shapes: Object.fromEntries(Object.entries(site.params).map(([role, { shape }]) => [role, shape])),
  }));
}

function configOf(
  main: FormattedMethod,
  own: readonly Part[],
  beside: readonly Part[],
  { base, task }: WritePeftOptions,
): PeftConfig {
  const modules = written(own);
  const owners = [...new Set(beside.map(({ owner }) => owner))];
  const along = owners.map(({ method, format }) => {
    const fields = format.accompany?.(written(beside.filter(({ owner }) => owner.method === method)));
    return typeof fields === 'object'
      ? fields
      : unsupported(fields ?? `PEFT has no ${method.id} beside other methods`);
  });
  return {
    auto_mapping: null,
    base_model_name_or_path: base ?? null,
    inference_mode: true,
    peft_type: main.format.types[0],
    revision: null,
    task_type: task ?? null,
    ...(main.format.whole === undefined ? { target_modules: modules.map(({ path }) => path) } : {}),
    ...settledConfig(main, modules),
    ...Object.assign({}, ...along),
  };
}

function unsupported(reason: string): never {
  return fail('E_UNSUPPORTED', {
    message: reason,
    remedy: 'Fold the adapter, or serve it with emit --target adapted',
  });
}
