/** Messages between `session.ts` (main thread) and `session-worker.ts`. Types only. */
import type { HostTensor } from './host-tensor.js';

/** One input or output of a model as ONNX Runtime reports it. */
export interface TensorInfo {
  readonly name: string;
  /** ORT's name of the dtype, equal to ours for every dtype it can pass. Undefined for sequences, maps, optionals. */
  readonly dtype: string | undefined;
  /** Numbers and symbols; '' is an anonymous symbol. */
  readonly shape: readonly (number | string)[];
}

/** Options handed to `InferenceSession.create` as they are. */
export type RawSessionOptions = Readonly<Record<string, unknown>>;

export type Tensors = Readonly<Record<string, HostTensor>>;

/** How tensors come back from a device: models that copy their input `x` to the output `y`, by dtype. */
export interface DeviceAccess {
  readonly copies: Readonly<Record<string, Uint8Array>>;
  readonly options: RawSessionOptions;
}

export type Request =
  | {
      readonly op: 'create';
      readonly model: string | Uint8Array;
      readonly options: RawSessionOptions;
      /** Set for sessions that take and keep tensors in the memory of a device. */
      readonly device?: DeviceAccess;
    }
  | {
      readonly op: 'run';
      readonly session: number;
      readonly feeds: Tensors;
      /** Input name → key of a resident tensor. */
      readonly resident: Readonly<Record<string, string>>;
      /** Output name → key under which the output becomes resident. */
      readonly keep: Readonly<Record<string, string>>;
      /** Outputs to send back. */
      readonly fetch: readonly string[];
      /** Fetched scalars; where one of them is not finite, nothing is kept. */
      readonly ifFinite?: readonly string[];
    }
  | { readonly op: 'put'; readonly tensors: Tensors }
  | { readonly op: 'get'; readonly keys: readonly string[] }
  | { readonly op: 'drop'; readonly keys: readonly string[] }
  | { readonly op: 'release'; readonly session: number }
  | { readonly op: 'close' };

export interface CreatedReply {
  readonly session: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

export type Reply =
  | { readonly id: number; readonly ok: true; readonly value: CreatedReply | Tensors | null }
  | { readonly id: number; readonly ok: false; readonly error: string };
