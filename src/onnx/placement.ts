/** Decides where each tensor of a saved model goes: into the model file, or into a file beside it. */
import { INLINE_LIMIT, type Tensor, type TensorData } from '../tensor.js';
import type { Place, Placement } from './encode-tensor.js';
import { ExternalData, UnlocatedData } from './payload.js';
import type { FileSource } from './source.js';

/** Page size on which external tensors start, so that they can be mapped into memory. */
const ALIGNMENT = 4096;

/** `keep`: as the file had it. `inline`: everything in the model file. `file`: payloads in one data file. */
export type ExternalMode = 'keep' | 'inline' | 'file';

export interface DataFile {
  readonly location: string;
  /** In order of offset. */
  readonly parts: readonly { readonly offset: number; readonly data: TensorData }[];
}

export class ModePlacement implements Placement {
  /** External files of the original that the saved model still refers to, by location. */
  readonly kept = new Map<string, FileSource>();
  readonly #parts: { offset: number; data: TensorData }[] = [];
  readonly #offsets = new Map<TensorData, number>();
  #end = 0;

  constructor(
    readonly mode: ExternalMode,
    /** Location of the data file, should one be needed. */
    readonly location: string,
    /** Payloads that would go into the model file move to the data file as well. */
    readonly spill = false,
  ) {}

  initializer(tensor: Tensor): Place {
    const { data } = tensor;
    const large = tensor.strings === undefined && data.byteLength > INLINE_LIMIT;
    if (this.mode === 'file') return large ? this.#move(data) : this.attribute(tensor);
    const place = this.attribute(tensor);
    if (!this.spill || !large || (place === 'as-is' && isExternal(data))) return place;
    return this.#move(data);
  }

  attribute({ data }: Tensor): Place {
    if (!isExternal(data)) return 'as-is';
    if (this.mode !== 'keep') return 'raw';
    if (!(data instanceof ExternalData)) return 'as-is';
    const known = this.kept.get(data.location);
    // Two base models may use one location for different files; only one of them can have it here.
    if ((known !== undefined && known !== data.file) || (data.location === this.location && this.spill))
      return 'raw';
    this.kept.set(data.location, data.file);
    return 'as-is';
  }

  get dataFile(): DataFile | undefined {
    return this.#parts.length === 0 ? undefined : { location: this.location, parts: this.#parts };
  }

  #move(data: TensorData): Place {
    let offset = this.#offsets.get(data);
    if (offset === undefined) {
      offset = Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT;
      this.#end = offset + data.byteLength;
      this.#offsets.set(data, offset);
      this.#parts.push({ offset, data });
    }
    return { location: this.location, offset, length: data.byteLength };
  }
}

function isExternal(data: TensorData): boolean {
  return data instanceof ExternalData || data instanceof UnlocatedData;
}
