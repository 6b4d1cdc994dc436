import type { ImageId } from '../domain/ids.ts'
import type { Layout } from './layout.ts'
import type { Ledger } from './ledger.ts'

export type Take = (id: ImageId) => Promise<void>

/** The part of this process in serving the queue of the node. */
export interface QueueServer {
  /** As `ImageCache.serveQueue`. */
  serve(take: Take): Promise<void>
  /** Resolves when nothing is under way here. */
  idle(): Promise<void>
}

export function queueServer(ledger: Ledger, layout: Layout, stopped: AbortSignal): QueueServer {
  let serving: Promise<void> | undefined
  /** Somebody asked while the queue was being served. */
  let again = false

  /** The next id, while it is this process's turn. */
  const next = (taken: ReadonlySet<ImageId>): Promise<ImageId | undefined> =>
    ledger.locked(async (book) => {
      if (!book.takeTurn()) return undefined
      const waiting = stopped.aborted ? undefined : (await layout.markers()).find((id) => !taken.has(id))
      // Looked for and given back in one step: who queues one after this finds the turn free.
      if (waiting === undefined) book.endTurn()
      return waiting
    })
  const serveOnce = async (take: Take): Promise<void> => {
    const taken = new Set<ImageId>()
    for (let id = await next(taken); id !== undefined; id = await next(taken)) {
      taken.add(id)
      await take(id)
    }
  }
  const serve = async (take: Take): Promise<void> => {
    try {
      while (again && !stopped.aborted) {
        again = false
        await serveOnce(take)
      }
    } finally {
      serving = undefined
    }
  }
  return {
    serve: (take) => {
      again = true
      serving ??= serve(take)
      return serving
    },
    idle: async () => {
      await serving?.catch(() => undefined)
    },
  }
}
