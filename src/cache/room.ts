import type { FileHandle } from 'node:fs/promises'
import type { ImageId } from '../domain/ids.ts'
import type { CacheDriver, Copy } from './driver.ts'
import type { Layout } from './layout.ts'
import type { Book, FillEntry } from './ledger.ts'

/** After so long without a write, the file of a process that cannot be looked at is taken for abandoned. */
const FAR_MS = 30_000

export interface Pruned {
  readonly files: number
  readonly bytes: number
}

/**
 * Who gets how much of the cache's room. Files that are being filled count with what they will have, so the bound holds
 * at every moment. All methods are for the one who has the ledger's book open.
 */
export interface Room {
  /**
   * Keeps room for a file and creates it; copies that were not read for the longest time make way. `taken` when another
   * process fills it, undefined when it does not fit or other data of the image is in its place.
   */
  reserve(book: Book, id: ImageId, size: number, data: string): Promise<FileHandle | 'complete' | 'taken' | undefined>
  evict(copy: Copy): Promise<boolean>
  /** Until what is there is within the bound. */
  prune(book: Book): Promise<Pruned>
  /** Removes what dead processes left. */
  sweep(book: Book): Promise<void>
  /** Whether somebody still works on it. */
  isAlive(entry: FillEntry): Promise<boolean>
}

const sum = (all: readonly { readonly size: number }[]): number => all.reduce((total, { size }) => total + size, 0)

export function openRoom(layout: Layout, driver: CacheDriver, maxSize: number, isOurs: (id: ImageId) => boolean): Room {
  const isAlive = async ({ imageId, ours, far, orphaned }: FillEntry): Promise<boolean> => {
    if (ours) return isOurs(imageId)
    if (orphaned || !far) return !orphaned
    const part = await layout.part(imageId)
    return part !== undefined && Date.now() - part.modified.getTime() < FAR_MS
  }
  const sweep = async (book: Book): Promise<void> => {
    for (const entry of book.fills()) {
      if (await isAlive(entry)) continue
      await layout.removePart(entry.imageId)
      book.end(entry.imageId)
    }
  }
  const evict = async ({ imageId }: Copy): Promise<boolean> => {
    const removed = await layout.removeCopy(imageId)
    await driver.remove(imageId)
    return removed
  }
  /** Those read longest ago go until at most `limit` bytes are left. */
  const evictDownTo = async (copies: readonly Copy[], limit: number): Promise<Pruned> => {
    let left = sum(copies)
    if (left <= limit) return { files: 0, bytes: 0 }
    const read = new Map((await driver.list(copies)).map(({ imageId, lastAccessed }) => [imageId, lastAccessed]))
    const lastRead = ({ imageId, modified }: Copy) => (read.get(imageId) ?? modified).getTime()
    let files = 0
    for (const copy of copies.toSorted((a, b) => lastRead(a) - lastRead(b))) {
      if (left <= limit) break
      await evict(copy)
      left -= copy.size
      files += 1
    }
    return { files, bytes: sum(copies) - left }
  }

  return {
    evict,
    sweep,
    isAlive,
    reserve: async (book, id, size, data) => {
      if ((await layout.copy(id)) !== undefined) return 'complete'
      await sweep(book)
      const fills = book.fills()
      const present = fills.find(({ imageId }) => imageId === id)
      if (present !== undefined) return present.data === data ? 'taken' : undefined
      const copies = await layout.copies()
      const parts = await Promise.all(fills.map(async ({ imageId }) => (await layout.part(imageId)) ?? { size: 0 }))
      // A disk that is short of room bounds the cache too.
      const limit = Math.min(maxSize, sum(copies) + sum(parts) + (await layout.freeBytes()))
      const others = sum(fills) + size
      if (others > limit) return undefined
      await evictDownTo(copies, limit - others)
      // A disk may be too full for the entry, and a file without one is nobody's.
      book.begin(id, size, data)
      return layout.begin(id)
    },
    prune: async (book) => {
      await sweep(book)
      return evictDownTo(await layout.copies(), Math.max(0, maxSize - sum(book.fills())))
    },
  }
}
