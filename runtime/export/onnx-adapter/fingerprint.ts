/**
 * The base in 32 bits: the one free number of the format that says what an adapter belongs to is `model_version`. Thirty
 * bits of the digest of the base's weights, above every version that people count up to.
 */
const MARK = 0x40000000;

/** Of a digest `sha256:<hex>`; undefined for what is none. */
export function fingerprint(digest: string | undefined): number | undefined {
  const [, head] = /^sha256:([0-9a-f]{8})/.exec(digest ?? '') ?? [];
  return head === undefined ? undefined : MARK + Math.floor(Number.parseInt(head, 16) / 4);
}

/** Whether a version is a fingerprint. */
export function isFingerprint(version: number): boolean {
  return version >= MARK;
}
