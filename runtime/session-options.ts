/** What a session can be asked for, and how ONNX Runtime is asked for it. */
import { copyModel } from './ep/copy-model.js';
import type { ExecutionProvider } from './ep/index.js';
import type { DeviceAccess, RawSessionOptions } from './session-protocol.js';

/** Severity below which ONNX Runtime stays silent. */
export const LOG_LEVELS = { verbose: 0, info: 1, warning: 2, error: 3, fatal: 4 } as const;
export type LogLevel = keyof typeof LOG_LEVELS;

export interface SessionOptions {
  /** Threads inside one operator; default: what ONNX Runtime picks (the physical cores). */
  readonly threads?: number;
  /** Execution provider; `cpu` backs every other one unless `cpuFallback` is false. Default `cpu`. */
  readonly ep?: 'cpu' | 'cuda' | 'webgpu' | 'coreml' | 'dml' | 'tensorrt';
  /** False makes session creation fail when any node would run on the CPU. */
  readonly cpuFallback?: boolean;
  /** Outputs that stay in the memory of the device where the provider can leave them there. */
  readonly onDevice?: readonly string[];
  /** Repack constant weights for faster GEMMs at the price of a second copy. Default true. */
  readonly prepack?: boolean;
  /** Plan activations as one block for repeated shapes; faster, more memory. Default true. */
  readonly memPattern?: boolean;
  /** Keep freed memory for the next run. Default true. */
  readonly arena?: boolean;
  /** Let idle threads spin between operators. Default true. */
  readonly spin?: boolean;
  /** Graph rewrites by ONNX Runtime. Default `all`. */
  readonly optimize?: 'disabled' | 'basic' | 'extended' | 'layout' | 'all';
  /** External data of a model given as bytes: the name used in the model, and its contents. */
  readonly externalData?: readonly { readonly path: string; readonly data: Uint8Array }[];
  /** Folder of the external data files of a model given as bytes. */
  readonly externalFolder?: string;
  /** What ONNX Runtime prints to stderr. Default `fatal`: its errors are thrown, and need no second voice. */
  readonly logLevel?: LogLevel;
  /** Write a Chrome trace of every operator that ran to `<profile>_<date>.json` when the session is released. */
  readonly profile?: string;
}

const CPU = 'cpu';

/** Each option's translation; undefined options leave ONNX Runtime's default. */
export function rawOptions(options: SessionOptions, provider: ExecutionProvider): RawSessionOptions {
  const entries: Record<string, string> = {};
  if (options.prepack === false) entries.disable_prepacking = '1';
  if (options.cpuFallback === false) entries.disable_cpu_ep_fallback = '1';
  if (options.externalFolder !== undefined)
    entries.model_external_initializers_file_folder_path = options.externalFolder;
  const session: Record<string, unknown> = { ...entries };
  if (options.spin === false) session.intra_op = { allow_spinning: '0' };
  const backed = provider.backedByCpu && options.cpuFallback !== false;
  const kept = provider.residency === undefined ? [] : (options.onDevice ?? []);
  return {
    executionProviders: [provider.id, ...(backed ? [CPU] : [])],
    ...(kept.length === 0
      ? {}
      : { preferredOutputLocation: Object.fromEntries(kept.map((name) => [name, provider.residency])) }),
    graphOptimizationLevel: options.optimize ?? 'all',
    logSeverityLevel: LOG_LEVELS[options.logLevel ?? 'fatal'],
    extra: { session },
    ...(options.threads === undefined ? {} : { intraOpNumThreads: options.threads }),
    ...(options.memPattern === undefined ? {} : { enableMemPattern: options.memPattern }),
    ...(options.arena === undefined ? {} : { enableCpuMemArena: options.arena }),
    ...(options.externalData === undefined ? {} : { externalData: options.externalData }),
    ...(options.profile === undefined ? {} : { enableProfiling: true, profileFilePrefix: options.profile }),
  };
}

/** What the thread needs to read tensors back; undefined for providers that keep none. */
export function deviceAccess(provider: ExecutionProvider): DeviceAccess | undefined {
  if (provider.residency === undefined) return undefined;
  return {
    copies: Object.fromEntries(COPIED.map((dtype) => [dtype, copyModel(dtype)])),
    options: rawOptions({ threads: 1 }, provider),
  };
}

/** Dtypes that are kept on devices. */
const COPIED = ['float32', 'float16', 'int32'] as const;
