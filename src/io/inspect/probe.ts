/** The longest end of the stream that a probe may ask for. */
export const LAST_MAX = 1536

/** A stretch of the stream: counted from its beginning, or its last bytes, up to LAST_MAX of them. */
export type Region = { readonly offset: number; readonly length: number } | { readonly last: number }

/** What a region held. */
export interface Piece {
  /** As long as asked for, with zeros where the stream has nothing. */
  readonly bytes: Buffer
  /** Whether the stream covered the region. */
  readonly complete: boolean
  /** Bytes seen so far; the whole stream when the last bytes were asked for. */
  readonly seen: number
}

/** A check that image data did not pass; `check` is a name that operators may know from configuration. */
export interface Failure {
  readonly check: string
  readonly reason: string
}

/** What a probe says of data that is of its format. */
export interface Finding {
  /** Bytes that a machine would see as the disk; undefined when the data does not say. */
  readonly virtualSize: bigint | undefined
  /** The variety of the format, in the format's own words. */
  readonly subformat?: string
  readonly failures: readonly Failure[]
}

/**
 * Recognises one format. It yields the regions it wants to see, each beyond the previous one because the stream passes
 * only once, and returns undefined when the data is of another format.
 */
export type Probe = Generator<Region, Finding | undefined, Piece>

export const at = (offset: number, length: number): Region => ({ offset, length })
export const last = (length: number): Region => ({ last: length })

export const startsWith = (bytes: Buffer, magic: string): boolean =>
  bytes.subarray(0, magic.length).equals(Buffer.from(magic, 'latin1'))

export const isZero = (bytes: Buffer): boolean => bytes.every((byte) => byte === 0)

/** `[{ check, reason }]` when `failed`, so that checks can be listed one below the other. */
export const failIf = (failed: boolean, check: string, reason: string): readonly Failure[] =>
  failed ? [{ check, reason }] : []

export const failIfCut = (piece: Piece): readonly Failure[] =>
  failIf(!piece.complete, 'header', 'The data ends within its header')
