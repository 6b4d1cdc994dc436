import type { CachedImage } from '../domain/cached-image.ts'
import type { ImageId } from '../domain/ids.ts'

/** A complete file of the cache, as its folder shows it. */
export interface Copy {
  readonly imageId: ImageId
  readonly path: string
  /** Bytes. */
  readonly size: number
  readonly modified: Date
  readonly accessed: Date
}

/**
 * What an index implements: it remembers what the files themselves do not say. The files decide what is cached; a
 * record may be missing, or speak of a file that is gone.
 */
export interface CacheDriver {
  /** As `image_cache_driver` names it. */
  readonly name: string
  /** What is recorded of `copy`; undefined when nothing is. */
  find(copy: Copy): Promise<CachedImage | undefined>
  /** What is recorded of any of `copies`. */
  list(copies: readonly Copy[]): Promise<readonly CachedImage[]>
  /** Records a copy, which may still have to get its name, in place of what was recorded of another of this image. */
  add(copy: Copy, record: CachedImage): Promise<void>
  /** `copy` is being read: one more hit, last accessed now. */
  touch(copy: Copy): Promise<void>
  /** The copy is gone. */
  remove(id: ImageId): Promise<void>
  close(): Promise<void>

  /** Addresses of the nodes that have a copy, for an index that all nodes share. */
  nodes?(id: ImageId): Promise<readonly string[]>
}
