/**
 * An execution provider of ONNX Runtime, as far as the rest of the runtime has to know it. One file per provider
 * declares its answers; nothing else asks which provider it has.
 */
import type { DeviceNeeds } from '../../passes/portable/device.js';
import type { HalfDType } from '../../passes/precision/lowered-tensor.js';

/** What `doctor` found about one requirement. */
export interface Finding {
  readonly check: string;
  readonly ok: boolean;
  readonly found: string;
  readonly remedy?: string;
}

/** Where `doctor` looks; tests give folders of their own. */
export interface Surroundings {
  readonly platform: NodeJS.Platform;
  readonly arch: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder of the binaries of onnxruntime-node. */
  readonly binaries: string;
  /** Folders that the dynamic linker searches, in order. */
  readonly libraryFolders: readonly string[];
  /** Root of the file system that driver files are looked up in. */
  readonly root: string;
}

export interface ExecutionProvider {
  /** Name that ONNX Runtime and `--ep` use. */
  readonly id: string;
  readonly title: string;
  /** Where the outputs that a run keeps may stay; absent: in host memory. */
  readonly residency?: 'gpu-buffer';
  /** How graphs must be lowered to stay on the device; absent: they run as they are. */
  readonly needs?: DeviceNeeds;
  /** Whether the device is asked for with the CPU behind it. */
  readonly backedByCpu: boolean;
  /** What to do when the provider is not there. */
  readonly absent: string;
  /** What to do when its memory runs out. */
  readonly outOfMemory: string;
  /**
   * Operators of ai.onnx with a kernel, as far as known; used to name those that have none. Absent: unknown.
   */
  readonly kernels?: ReadonlySet<string>;
  /**
   * Operators of ai.onnx that compute in float32 and have no kernel for a half-precision dtype; a dtype that is left out
   * is not computed in at all.
   */
  readonly withoutHalf?: Readonly<Partial<Record<HalfDType, ReadonlySet<string>>>>;
  /** Checks of the installation, cheapest first. */
  check(surroundings: Surroundings): readonly Finding[];
}

export function defineProvider(provider: ExecutionProvider): ExecutionProvider {
  return provider;
}
