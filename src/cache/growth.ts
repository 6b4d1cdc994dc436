import type { FileHandle } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { ImageId } from '../domain/ids.ts'
import type { Layout } from './layout.ts'

/** A copy that is being made, as those see it who read it meanwhile. */
export interface Growth {
  /** Bytes that there will be. */
  readonly size: number
  /** Bytes that can be read; all of them only once they have been verified. */
  available(): number
  /**
   * Resolves with the bytes that can be read once they are more than `position`; undefined when the copy will not be
   * completed, though what has been read of it is good. Rejects when the data is not that of the image.
   */
  beyond(position: number): Promise<number | undefined>
  /** Undefined when the file is gone. */
  open(): Promise<FileHandle | undefined>
}

/** The same for who makes the copy. */
export interface OwnGrowth extends Growth {
  wrote(bytes: number): void
  /** All is there, and is what it should be. */
  verified(): void
  abandoned(): void
  /** The data turned out to be wrong. */
  spoilt(error: unknown): void
}

type End = 'verified' | 'abandoned' | { readonly error: unknown }

/** The file of `id`, filled or still being filled. */
const openEither = async (layout: Layout, id: ImageId) => (await layout.openPart(id)) ?? (await layout.openCopy(id))

export function ownGrowth(layout: Layout, id: ImageId, size: number): OwnGrowth {
  let written = 0
  let end: End | undefined
  let waiting: (() => void)[] = []
  const wake = () => {
    const woken = waiting
    waiting = []
    for (const each of woken) each()
  }
  const finish = (how: End) => {
    end ??= how
    wake()
  }
  // The last byte waits for the verdict: a client must not take wrong data for a complete image.
  const available = () => (end === 'verified' ? size : Math.max(0, Math.min(written, size - 1)))
  return {
    size,
    available,
    beyond: async (position) => {
      while (end === undefined && available() <= position) await new Promise<void>((resolve) => waiting.push(resolve))
      if (typeof end === 'object') throw end.error
      if (end === 'abandoned') return undefined
      return available()
    },
    open: () => openEither(layout, id),
    wrote: (bytes) => {
      written += bytes
      wake()
    },
    verified: () => finish('verified'),
    abandoned: () => finish('abandoned'),
    spoilt: (error) => finish({ error }),
  }
}

const FIRST_LOOK_MS = 5
const LOOK_MS = 50
/** Without a new byte for so long, it is asked whether the other process lives. */
const DOUBT_MS = 1000

/**
 * A copy that another process of the node makes: its file grows, gets its final name when it is complete, and loses its
 * name when it is not kept. All readers here share one look at a time.
 */
export function followedGrowth(layout: Layout, id: ImageId, size: number, isAlive: () => Promise<boolean>): Growth {
  let end: End | undefined
  let written = 0
  let looking: Promise<void> | undefined
  let lastNews = performance.now()

  const look = async (): Promise<void> => {
    const part = await layout.part(id)
    if (part === undefined) {
      // Complete, or not kept; in that order, for an upload is renamed and not copied.
      end = (await layout.copy(id))?.size === size ? 'verified' : 'abandoned'
      return
    }
    const now = performance.now()
    if (part.size > written) lastNews = now
    written = Math.max(written, part.size)
    if (now - lastNews < DOUBT_MS) return
    lastNews = now
    if (!(await isAlive()) && (await layout.copy(id)) === undefined) end = 'abandoned'
  }
  const shared = () => {
    looking ??= look().finally(() => {
      looking = undefined
    })
    return looking
  }
  const available = () => (end === 'verified' ? size : Math.max(0, Math.min(written, size - 1)))
  return {
    size,
    available,
    beyond: async (position) => {
      for (let pauseMs = FIRST_LOOK_MS; ; pauseMs = Math.min(LOOK_MS, pauseMs * 2)) {
        if (end === 'abandoned') return undefined
        if (available() > position) return available()
        await shared()
        if (end === undefined && available() <= position) await delay(pauseMs)
      }
    },
    open: () => openEither(layout, id),
  }
}
