import type { ImageId } from './ids.ts'

/** A complete copy of an image's data in the cache of a node. */
export interface CachedImage {
  readonly imageId: ImageId
  /** Bytes. */
  readonly size: number
  /** How often it was read since it was made. */
  readonly hits: number
  readonly lastAccessed: Date
  readonly lastModified: Date
  /** md5 of the data, hex; null when it was not noted. */
  readonly checksum: string | null
  /** Number of its record, where the service database keeps it. */
  readonly row?: number
}
