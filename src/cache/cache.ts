import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { CachedImage } from '../domain/cached-image.ts'
import { ServiceError } from '../domain/errors.ts'
import type { ImageId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { ByteRange, ByteSource } from '../io/bytes.ts'
import { fileSource, openBuffers } from '../io/file-source.ts'
import { openPump } from '../io/pump.ts'
import type { Log } from '../log.ts'
import type { CacheDriver, Copy } from './driver.ts'
import { fillFile, isSpoilt } from './fill.ts'
import { followedGrowth, type Growth, type OwnGrowth, ownGrowth } from './growth.ts'
import type { Layout } from './layout.ts'
import { openLedger } from './ledger.ts'
import { queueServer, type Take } from './queue.ts'
import { openRoom, type Pruned } from './room.ts'
import { type Fetch, tailSource } from './tail.ts'

export type { Fetch } from './tail.ts'

export interface ReadOptions {
  readonly signal: AbortSignal
  /** Reads from the stores. */
  readonly fetch: Fetch
}

/** Image data kept near, on the disk of this node; shared by its processes. */
export interface ImageCache {
  /** As `image_cache_driver` names it. */
  readonly driver: string
  /**
   * The bytes of `range` from the copy that is here or being made. Who asks for all of an image that is not here makes
   * the copy come to be: in a task of its own, by one read of the store however many ask. Undefined when the store is
   * to be asked instead; a cache that fails is no reason for a download to fail. The caller has admitted the reader.
   */
  read(image: Image, range: ByteRange, options: ReadOptions): Promise<ByteSource | undefined>
  /** Resolves when there is a copy, or (false) when none can be made. */
  fill(image: Image, fetch: Fetch): Promise<boolean>
  /** Removes the copy; one that is being made is not kept. Whether there was one. */
  evict(id: ImageId): Promise<boolean>
  /** Removes all copies, and returns how many there were. */
  evictAll(): Promise<number>
  /** By image id. What has been downloaded whole is in it. */
  list(): Promise<readonly CachedImage[]>
  /** False when it is there, coming, or queued already. */
  enqueue(id: ImageId): Promise<boolean>
  dequeue(id: ImageId): Promise<boolean>
  dequeueAll(): Promise<number>
  /** In the order in which they were queued. */
  queued(): Promise<readonly ImageId[]>
  /**
   * Hands each queued id to `take` once, in order, unless another process of the node does that already; resolves when
   * none is left. What `take` neither fills nor dequeues stays queued.
   */
  serveQueue(take: Take): Promise<void>
  /** Evicts what is above the bound, the copies read longest ago first. */
  prune(): Promise<Pruned>
  /** Removes what failed or stalled. */
  clean(): Promise<void>
  /** Addresses of the nodes that have a copy; absent without a shared index. */
  nodes?(id: ImageId): Promise<readonly string[]>
  /** Gives up the copies that are being made. */
  close(): Promise<void>
}

export interface CacheSettings {
  readonly dir: string
  readonly layout: Layout
  /** Owned by the cache from here on. */
  readonly driver: CacheDriver
  /** Bytes; holds at every moment. */
  readonly maxSize: number
  /** A file into which nothing was written for so long is given up. */
  readonly stallMs: number
  readonly log: Log
}

/** Of the memory for copies that are being made; several share it. */
const PUMP_MIB = 8
/** `image_cache_stall_time` may be 0, which is for what is left over, not for what is under way. */
const SHORTEST_STALL_MS = 60_000
const LONGEST_TIMER_MS = 2_147_483_647

/** A copy that is being made, by whichever process. */
interface Growing {
  readonly data: string
  readonly growth: Promise<Growth | 'complete' | undefined>
}

/** A copy that this process makes. */
interface Fill {
  readonly growth: OwnGrowth
  /** Resolves when it has its name, or is gone. */
  readonly ended: Promise<void>
}

export async function openImageCache(settings: CacheSettings): Promise<ImageCache> {
  const { dir, layout, driver, maxSize, stallMs, log } = settings
  const ledger = await openLedger(join(dir, 'fills', 'ledger.db'))
  const pump = openPump({ memoryMiB: PUMP_MIB, threads: 2 })
  const buffers = openBuffers()
  const closing = new AbortController()
  const watchMs = Math.min(Math.max(stallMs, SHORTEST_STALL_MS), LONGEST_TIMER_MS)
  /** What grows here or is followed, from the moment that somebody asked for it. */
  const growths = new Map<ImageId, Growing>()
  /** What this process has reserved room for; an entry of ours that is not among them was left behind. */
  const held = new Set<ImageId>()
  const fills = new Map<ImageId, Fill>()
  const queue = queueServer(ledger, layout, closing.signal)
  const room = openRoom(layout, driver, maxSize, (id) => held.has(id))

  /** The open file of the copy, when it is one of this image's data. */
  const openCopy = async (image: Image): Promise<FileHandle | undefined> => {
    const copy = await layout.copy(image.id)
    if (copy === undefined) return undefined
    const checksum = (await driver.find(copy))?.checksum ?? null
    if (copy.size !== image.size || (checksum !== null && image.checksum !== null && checksum !== image.checksum)) {
      log.warn(`The cached copy of image ${image.id} is of other data, and removed`)
      await ledger.locked(() => room.evict(copy))
      return undefined
    }
    const file = await layout.openCopy(image.id)
    if (file !== undefined) count(driver.touch(copy))
    return file
  }
  const count = (counted: Promise<void>): void => {
    counted.catch((error: unknown) => log.warn('A hit of the image cache is not counted', error))
  }
  /** Who reads a copy that is being made counts once there is something to count by. */
  const countLater = async (id: ImageId): Promise<void> => {
    await fills.get(id)?.ended
    const copy = await layout.copy(id)
    if (copy !== undefined) await driver.touch(copy)
  }

  const growing = (image: Image): Growing['growth'] | undefined => {
    const known = growths.get(image.id)
    return known?.data === nameOf(image) ? known.growth : undefined
  }
  /** The growth of the copy, which begins now unless it has begun before. */
  const grow = (image: Image, fetch: Fetch): Growing['growth'] => {
    const known = growing(image)
    if (known !== undefined) return known
    const growth = begin(image, fetch)
    const entry = { data: nameOf(image), growth }
    growths.set(image.id, entry)
    const forget = () => {
      if (growths.get(image.id) === entry) growths.delete(image.id)
    }
    growth.then((begun) => {
      if (begun === undefined || begun === 'complete') return forget()
      const ended = fills.get(image.id)?.ended ?? begun.beyond(begun.size - 1)
      ended.then(forget, forget)
    }, forget)
    return growth
  }
  const begin = async (image: Image, fetch: Fetch): Growing['growth'] => {
    const { id, size } = image
    if (size === null || size > maxSize) return undefined
    const file = await reserve(image, size)
    if (file === 'taken') return followedGrowth(layout, id, size, () => isFilled(id))
    if (file === undefined || file === 'complete') return file
    const stop = new AbortController()
    const signal = AbortSignal.any([stop.signal, closing.signal])
    try {
      const source = await fetch({ offset: 0, length: size }, signal)
      if (source === undefined) throw new ServiceError('not-found', 'No store has the data')
      const growth = ownGrowth(layout, id, size)
      const ended = fillUntilEnd(image, source, file, growth, stop, signal).finally(() => fills.delete(id))
      fills.set(id, { growth, ended })
      return growth
    } catch (error) {
      log.warn(`Image ${id} is not cached`, error)
      await file.close()
      await drop(id)
      return undefined
    }
  }
  const reserve = async (image: Image, size: number): ReturnType<typeof room.reserve> => {
    let reserved: Awaited<ReturnType<typeof room.reserve>>
    try {
      await ledger.locked(async (book) => {
        reserved = await room.reserve(book, image.id, size, nameOf(image))
        if (typeof reserved === 'object') held.add(image.id)
      })
      return reserved
    } catch (error) {
      held.delete(image.id)
      if (typeof reserved === 'object') {
        await reserved.close()
        await removeStray(image.id)
      }
      throw error
    }
  }
  /** Of a file whose entry was not kept; by now there may be an entry of somebody else. */
  const removeStray = (id: ImageId): Promise<void> =>
    ledger.locked(async (book) => {
      if (book.fills().every(({ imageId }) => imageId !== id)) await layout.removePart(id)
    })
  const isFilled = (id: ImageId): Promise<boolean> =>
    ledger.locked(async (book) => {
      const entry = book.fills().find(({ imageId }) => imageId === id)
      return entry !== undefined && (await room.isAlive(entry))
    })

  /** Never rejects: what went wrong is for the log, and the readers hear it from the growth. */
  const fillUntilEnd = async (
    image: Image,
    source: ByteSource,
    file: FileHandle,
    growth: OwnGrowth,
    stop: AbortController,
    signal: AbortSignal,
  ): Promise<void> => {
    const stalled = () => stop.abort(new ServiceError('timeout', 'Nothing came from the store any more'))
    const watch = setTimeout(stalled, watchMs)
    const wrote = (bytes: number) => {
      watch.refresh()
      growth.wrote(bytes)
    }
    try {
      await fillFile(image, source, file, { pump, signal, wrote })
      growth.verified()
      await file.datasync()
      await keep(image)
    } catch (error) {
      if (isSpoilt(error)) growth.spoilt(error)
      else growth.abandoned()
      if (!closing.signal.aborted) log.warn(`Image ${image.id} is not cached`, error)
      await drop(image.id)
    } finally {
      clearTimeout(watch)
      await file.close()
    }
  }
  const keep = ({ id, checksum }: Image): Promise<void> =>
    ledger.locked(async (book) => {
      const entry = book.fills().find(({ imageId }) => imageId === id)
      held.delete(id)
      if (entry?.ours !== true) return // taken for dead: the name is somebody else's by now
      if (entry.cancelled) await layout.removePart(id)
      else {
        // First what it is a copy of: a reader must not find it without.
        await record(id, checksum)
        await layout.complete(id)
        await layout.removeMarker(id)
      }
      book.end(id)
    })
  /** The file decides what is cached: a record that cannot be made costs only its numbers. */
  const record = async (id: ImageId, checksum: string | null): Promise<void> => {
    try {
      const copy = await layout.part(id)
      if (copy !== undefined) await driver.add(copy, { ...unrecorded(copy), lastAccessed: new Date(), checksum })
    } catch (error) {
      log.warn(`The cached copy of image ${id} has no record`, error)
    }
  }
  const drop = async (id: ImageId): Promise<void> => {
    try {
      await ledger.locked(async (book) => {
        if (!book.fills().some(({ imageId, ours }) => ours && imageId === id)) return
        await layout.removePart(id)
        book.end(id)
      })
    } catch (error) {
      log.error(`What was cached of image ${id} stays until the next sweep`, error)
    } finally {
      held.delete(id)
    }
  }

  const readCopy = async (image: Image, range: ByteRange, signal: AbortSignal): Promise<ByteSource | undefined> => {
    const file = await openCopy(image)
    return file && fileSource(file, range, signal, buffers)
  }
  const read: ImageCache['read'] = async (image, range, { signal, fetch }) => {
    const copy = await readCopy(image, range, signal)
    if (copy !== undefined) return copy
    const whole = range.length === image.size
    const joins = growing(image) !== undefined
    const growth = await (whole ? grow(image, fetch) : growing(image))
    if (growth === 'complete') return readCopy(image, range, signal)
    // What a growing copy has not reached yet comes sooner from the store.
    if (growth === undefined || range.offset > growth.available()) return undefined
    const file = await growth.open()
    if (file !== undefined && joins) count(countLater(image.id))
    return file && tailSource(growth, file, range, { signal, buffers, fetch })
  }

  const list: ImageCache['list'] = async () => {
    await settled(fills)
    const copies = await layout.copies()
    const recorded = new Map((await driver.list(copies)).map((one) => [one.imageId, one]))
    return copies.map((copy) => ({ ...(recorded.get(copy.imageId) ?? unrecorded(copy)), size: copy.size }))
  }

  await ledger.locked(async (book) => {
    await room.prune(book)
    const copies = await layout.copies()
    const recorded = new Set((await driver.list(copies)).map(({ imageId }) => imageId))
    for (const copy of copies) if (!recorded.has(copy.imageId)) await driver.add(copy, unrecorded(copy))
  })

  return {
    driver: driver.name,
    read: async (image, range, options) => {
      if (image.status !== 'active' || image.size === null) return undefined
      try {
        return await read(image, range, options)
      } catch (error) {
        options.signal.throwIfAborted()
        log.warn(`Image ${image.id} is read past the cache`, error)
        return undefined
      }
    },
    fill: async (image, fetch) => {
      if (image.status !== 'active' || image.size === null) return false
      if ((await layout.copy(image.id))?.size === image.size) return layout.removeMarker(image.id).then(() => true)
      const growth = await grow(image, fetch)
      if (growth === undefined) return false
      // A copy of wrong data is none.
      if (growth !== 'complete') await growth.beyond(growth.size - 1).catch(() => undefined)
      await fills.get(image.id)?.ended
      return (await layout.copy(image.id)) !== undefined
    },
    evict: (id) =>
      ledger.locked(async (book) => {
        book.cancel(id)
        const copy = await layout.copy(id)
        return copy !== undefined && room.evict(copy)
      }),
    evictAll: async () => {
      await settled(fills)
      return ledger.locked(async () => {
        let evicted = 0
        for (const copy of await layout.copies()) evicted += Number(await room.evict(copy))
        return evicted
      })
    },
    list,
    enqueue: async (id) => {
      if ((await layout.copy(id)) !== undefined || growths.has(id)) return false
      if ((await layout.part(id)) !== undefined && (await isFilled(id))) return false
      return layout.addMarker(id)
    },
    dequeue: (id) => layout.removeMarker(id),
    dequeueAll: async () => {
      let removed = 0
      for (const id of await layout.markers()) removed += Number(await layout.removeMarker(id))
      return removed
    },
    queued: layout.markers,
    serveQueue: queue.serve,
    prune: () => ledger.locked((book) => room.prune(book)),
    clean: () =>
      ledger.locked(async (book) => {
        await layout.removeInvalid()
        await room.sweep(book)
        const filled = new Set(book.fills().map(({ imageId }) => imageId))
        for (const id of await layout.parts()) {
          const since = (await layout.part(id))?.modified.getTime() ?? Date.now()
          if (!filled.has(id) && Date.now() - since > stallMs) await layout.removePart(id)
        }
      }),
    ...(driver.nodes === undefined ? {} : { nodes: driver.nodes }),
    close: async () => {
      closing.abort(new ServiceError('unavailable', 'The service is shutting down'))
      await Promise.all([...fills.values()].map(({ ended }) => ended))
      await queue.idle()
      await pump.close()
      await driver.close()
      await ledger.close()
    },
  }
}

/** Names the data of an image: it may be given other data when its locations are replaced. */
const nameOf = ({ size, checksum, osHashValue }: Image): string => `${size} ${checksum ?? osHashValue ?? ''}`

/** What is known of a copy from its file alone. */
const unrecorded = ({ imageId, size, modified }: Copy): CachedImage => ({
  imageId,
  size,
  hits: 0,
  lastAccessed: modified,
  lastModified: modified,
  checksum: null,
})

/** Waits for copies that are complete but for their name. */
async function settled(fills: ReadonlyMap<ImageId, Fill>): Promise<void> {
  const complete = [...fills.values()].filter(({ growth }) => growth.available() === growth.size)
  await Promise.all(complete.map(({ ended }) => ended))
}
