import type { CachedImage } from '../domain/cached-image.ts'
import type { CacheDriver } from './driver.ts'
import type { Layout } from './layout.ts'

/** An index that can say all that it knows, also of files that are gone. */
export type Records = Pick<CacheDriver, 'remove'> & { all(): Promise<readonly CachedImage[]> }

/**
 * Moves what an index in a file says to another index that does not know it yet; the copies stay where they are. Any
 * number of processes may do this at once, and where one is interrupted the next goes on.
 */
export async function moveRecords(layout: Layout, from: Records, to: CacheDriver): Promise<void> {
  for (const record of await from.all()) {
    const copy = await layout.copy(record.imageId)
    if (copy !== undefined && (await to.find(copy)) === undefined) await to.add(copy, record)
    await from.remove(record.imageId)
  }
}
