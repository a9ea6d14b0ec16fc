/** What is used of the global `WebAssembly`, which the language's own declarations leave to browsers. */

export interface Engine {
  readonly Memory: new (limits: {
    readonly initial: number;
    readonly maximum: number;
    readonly shared: true;
  }) => Memory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly env: { readonly memory: Memory } },
  ) => { readonly exports: { readonly run: Run } };
  validate(bytes: Uint8Array): boolean;
}

/** Memory of several threads. Its pages stay where they are when it grows. */
export interface Memory {
  readonly buffer: SharedArrayBuffer;
  grow(pages: number): number;
}

/** A function of numbers that works on memory; those of the kernel are the parameters of `lowRankProgram`. */
export type Run = (...numbers: readonly number[]) => void;

/** Bytes of a page of memory. */
export const PAGE = 1 << 16;
/** Pages that an address of 32 bits reaches. */
export const MAX_PAGES = 1 << 16;

/** Undefined where Node.js runs without a compiler (`--jitless`). */
export function engineHere(): Engine | undefined {
  return (globalThis as { readonly WebAssembly?: Engine }).WebAssembly;
}
