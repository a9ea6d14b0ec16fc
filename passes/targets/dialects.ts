/** How tools name the tensors of an adapter: inputs of serving graphs, and parameters of the files that feed them. */
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import type { AdapterParam, AdapterSite } from '../adapter-record.js';
import type { Method } from '../methods/contract/method.js';

/** One tensor of an adapter, and where it stands. */
export interface AdapterTensor {
  readonly param: AdapterParam;
  readonly site: AdapterSite;
  readonly role: string;
  /** Undefined for a method of somebody's own that is not at hand. */
  readonly method: Method | undefined;
}

export interface AdapterDialect {
  readonly id: string;
  readonly summary: string;
  /** Whether the names are those of PEFT's keys, which not every method has. */
  readonly fromPeft: boolean;
  /** Of a module's path and PEFT's key behind it, both as PEFT has them. */
  name(path: string, key: string): string;
  /** Modules that the tool keeps apart where a checkpoint packs them, by the last part of the path. */
  readonly apart: Readonly<Record<string, readonly string[]>>;
}

const PACKED = { qkv_proj: ['q_proj', 'k_proj', 'v_proj'], gate_up_proj: ['gate_proj', 'up_proj'] };

const attention = (path: string) => path.replace(/(^|\.)self_attn(?=\.|$)/, '$1attn');

export const DIALECTS: readonly AdapterDialect[] = [
  {
    id: 'own',
    summary: 'as in the adapted model: model.layers.0.self_attn.q_proj.lora_A',
    fromPeft: false,
    name: (path, key) => `${path}.${key}`,
    apart: {},
  },
  {
    id: 'olive',
    summary: 'as olive convert-adapters writes them: model.layers.0.self_attn.q_proj.lora_A.weight',
    fromPeft: true,
    name: (path, key) => `${path}.${key}`,
    apart: {},
  },
  {
    id: 'olive-attn',
    summary:
      'as olive generate-adapter names the inputs of a graph of ORT GenAI: model.layers.0.attn.q_proj.lora_A.weight',
    fromPeft: true,
    name: (path, key) => `${attention(path)}.${key}`,
    apart: PACKED,
  },
  {
    id: 'genai',
    summary:
      "as ORT GenAI's model builder and olive extract-adapters have them: model.layers.0.attn.q_proj.lora_A.MatMul.weight",
    fromPeft: true,
    name: (path, key) => `${attention(path)}.${key.replace(/^(lora_[AB])(?=\.)/, '$1.MatMul')}`,
    apart: PACKED,
  },
];

/** Throws E_USAGE for an unknown id. */
export function dialectOf(id: string): AdapterDialect {
  return (
    DIALECTS.find((one) => one.id === id) ??
    fail('E_USAGE', {
      message: `There are no names '${id}'`,
      remedy: didYouMean(
        id,
        DIALECTS.map((one) => one.id),
      ),
    })
  );
}

/**
 * The name of a tensor. `path` is the module's in PEFT where it differs from the site's. Throws E_UNSUPPORTED where the
 * method has no such tensor in PEFT, or where the tool keeps apart what is one module here.
 */
export function nameIn(
  dialect: AdapterDialect,
  { param, site, role, method }: AdapterTensor,
  path = site.path,
): string {
  if (!dialect.fromPeft) return param.name;
  const parts = partsIn(dialect, path);
  if (parts !== undefined)
    fail('E_UNSUPPORTED', {
      message: `The names '${dialect.id}' keep ${parts.join(', ')} apart, which are one module here`,
      where: site.path,
      remedy: `Train with targets ${parts.join(', ')}, which are its columns, or export with --model <base>, which splits B`,
    });
  return dialect.name(path, peftKeyOf({ param, site, role, method }, dialect));
}

/** Paths of the modules that the tool has in place of a packed one; undefined for others. */
export function partsIn({ apart }: AdapterDialect, path: string): readonly string[] | undefined {
  const at = path.lastIndexOf('.') + 1;
  return apart[path.slice(at)]?.map((part) => path.slice(0, at) + part);
}

/** PEFT's key behind the module's path. Throws E_UNSUPPORTED where it has none. */
export function peftKeyOf({ site, role, method }: AdapterTensor, dialect: AdapterDialect): string {
  return (
    method?.peft?.tensors[site.kind as keyof Method['sites']]?.[role]?.key ??
    fail('E_UNSUPPORTED', {
      message: `The names '${dialect.id}' are those of PEFT, which does not have '${role}' of ${method?.id ?? 'this method'}`,
      where: site.path,
      remedy: 'Use --names own',
    })
  );
}
