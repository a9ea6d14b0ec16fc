/**
 * How Hugging Face PEFT stores a method: fields of `adapter_config.json` against our settings, tensors of
 * `adapter_model.safetensors` against our parameters. It belongs to the method and is data; `runtime/peft` reads and
 * writes folders by it. Source: peft 0.21, `tuners/<method>/{config,layer,model}.py`.
 */
import type { Tensor } from '../../../src/tensor.js';
import type { SiteKind } from '../../sites/site.js';

/** Fields of an `adapter_config.json`. */
export type PeftConfig = Readonly<Record<string, unknown>>;

/** A tensor of PEFT that is one parameter of ours. */
export interface PeftTensor {
  /** Key behind the module path, such as `lora_A.weight`; of a shared tensor, behind `base_model.`. */
  readonly key: string;
  /** Whether PEFT's matrix is the transpose of ours. Default false. */
  readonly transposed?: boolean;
  /**
   * Whether the tensor is a weight of the base's own orientation: [out, in] in a torch Linear, as ours in a Conv1D.
   */
  readonly weight?: boolean;
  /** Whether a smaller tensor is filled up with zeros. */
  readonly padded?: boolean;
  /** PEFT's shape at a convolution, of that at a linear over patches; default: the same. `window`: sizes of the window. */
  convolved?(shape: readonly number[], window: readonly number[]): readonly number[];
}

/** A module of a PEFT file. */
export interface PeftModule {
  /** Path of the site that it is matched with. */
  readonly path: string;
  /** As PEFT names it. */
  readonly name: string;
  /** Shapes by key behind the module path. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Sizes of the window, where the module is a convolution. */
  readonly window?: readonly number[] | undefined;
}

/** A stored matrix of the graph, or several in one tensor. */
export interface PeftTarget {
  /** Path of the module; of matrices in one tensor, what stands before their numbers. */
  readonly path: string;
  readonly inDim: number;
  readonly outDim: number;
  readonly count: number;
  /** Whether the tensor has an axis for them. */
  readonly stacked: boolean;
  /** Whether it holds [out, in]. */
  readonly outFirst: boolean;
  /** Whether the graph shows its module and its name. */
  readonly named: boolean;
}

/** The tensors of a folder. */
export interface PeftFile {
  readonly config: PeftConfig;
  /** By PEFT's keys. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly path: string;
  /** Linears of the graph, in order of execution. */
  readonly targets: readonly PeftTarget[];
  /** Attentions of the graph: layers, where each has one. */
  readonly layers: number;
  /** A path as a map of the user's has it; itself without one. */
  mapped(path: string): string;
  /** Elements of a tensor, row-major. */
  numbers(tensor: Tensor): Promise<Float64Array>;
  /** A tensor whose element `i` is element `at(i)` of another; moved when it is read. */
  moved(tensor: Tensor, dims: readonly number[], at: (i: number) => number): Tensor;
}

/** Where a parameter of ours lies in a tensor that holds the parameters of all modules. */
export interface PeftSlice {
  readonly role: string;
  readonly shape: readonly number[];
  /** The module's place among those of its kind, and their number. */
  readonly index: number;
  readonly count: number;
}

/** An adapter of the model as a whole: one tensor for all sites. */
export interface PeftWhole {
  readonly key: string;
  /** Shape of PEFT's tensor, of the parameters' of all modules. */
  shape(parameters: readonly PeftSlice[]): readonly number[];
  /** Index into PEFT's tensor `dims` of element `i` of our parameter. */
  at(i: number, slice: PeftSlice, dims: readonly number[]): number;
}

export interface PeftFormat {
  /** `peft_type`: one, or several that are stored alike, the first of which is written. */
  readonly types: readonly string[];
  /** Whether a configuration of that type is this method's. Default: always. */
  when?(config: PeftConfig): boolean;
  /** Why a configuration is not read, with what to do. */
  refuses?(config: PeftConfig): string | undefined;
  /** The method comes along with any type: its tensors stand beside those of the type. */
  readonly accompanies?: boolean;
  /** Its tensors at an embedding hold for whatever shares the embedding's weight. */
  readonly followsTies?: boolean;
  /** What stands between path and key where the method accompanies another: `token_adapter.` */
  readonly wrapper?: string;
  /** Fields of another type's configuration that announce the tensors, or why PEFT has no such thing. */
  accompany?(modules: readonly WrittenModule[]): PeftConfig | string;
  /** By kind of site and role. */
  readonly tensors: { readonly [Kind in SiteKind]?: Readonly<Record<string, PeftTensor>> };
  /** Parts of keys of tensors that are saved for training alone. */
  readonly ignores?: readonly string[];
  /** The tensors, under keys of modules where the file keeps them by something else. Throws E_INVALID_DATA. */
  rearranged?(file: PeftFile): Promise<ReadonlyMap<string, Tensor>>;
  /** The inverse: tensors of modules as the file keeps them. Throws E_UNSUPPORTED where they disagree. */
  restored?(file: PeftFile): Promise<ReadonlyMap<string, Tensor>>;
  /** Tensors that all modules share, by role. */
  readonly shared?: Readonly<Record<string, PeftTensor>>;
  readonly whole?: PeftWhole;
  /** Fields with values by module: where PEFT keeps the patterns. */
  readonly patterns?: Readonly<Record<string, string>>;
  /** Our settings at a module. Patterns are applied to `config`; without a module, those of the entry. */
  settings(config: PeftConfig, module?: PeftModule): Readonly<Record<string, unknown>>;
  /** PEFT's fields, or why PEFT has no such thing. Absent where the method is only read. */
  config?(
    settings: Readonly<Record<string, unknown>>,
    modules: readonly WrittenModule[],
  ): PeftConfig | string;
}

/** A module as it is written. */
export interface WrittenModule {
  /** In PEFT. */
  readonly path: string;
  /** Ours, at the module. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Of our parameters, by role. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
}

/** Patterns of the methods that call their numerator `alpha`. */
export const RANK_AND_ALPHA = { r: 'rank_pattern', alpha: 'alpha_pattern' } as const;

/** A number of a configuration. */
export function numberOf(config: PeftConfig, field: string, otherwise: number): number {
  const value = config[field];
  return typeof value === 'number' ? value : otherwise;
}

/** Whether a field is set to something: neither absent, null, false nor empty. */
export function isSet(config: PeftConfig, field: string): boolean {
  const value = config[field];
  if (value === undefined || value === null || value === false) return false;
  return typeof value !== 'object' || Object.keys(value).length > 0;
}

/** The first reason whose field is set. */
export function refusedFields(
  config: PeftConfig,
  reasons: Readonly<Record<string, string>>,
): string | undefined {
  return Object.entries(reasons).find(([field]) => isSet(config, field))?.[1];
}
