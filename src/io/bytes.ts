/**
 * Bytes on their way. A chunk is valid only until the next one is asked for: who needs it longer copies it.
 * (So a source may fill the same few buffers again and again, which halves the cost of a download.)
 * Leaving the loop early (`return()`) releases what the source holds.
 */
export type ByteSource = AsyncIterable<Buffer>

export interface ByteRange {
  readonly offset: number
  readonly length: number
}
