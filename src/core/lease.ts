import type { WorkerRepository } from '../db/database.ts'
import type { WorkerId } from '../domain/ids.ts'

type Listed = Awaited<ReturnType<WorkerRepository['list']>>

/** Tells those that are dead from those that only could not reach the database. */
export interface Watch {
  /** This worker's own renewal has succeeded, or failed. */
  renewed(ok: boolean): void
  /**
   * The workers that are silent: their lease ran out, and for as long as a lease lasts they have not renewed it though
   * the database was there, for this worker at least. The clock of the database alone decides nothing: it may stand
   * before the leases of all because the database was away, or be another one after a failover.
   */
  silent(workers: Listed): ReadonlySet<WorkerId>
}

/** `now` in milliseconds, of a clock that nobody sets. */
export function watchLeases(leaseMs: number, now: () => number = () => performance.now()): Watch {
  let renewedAt = now()
  let steadySince = renewedAt
  let seen: ReadonlyMap<WorkerId, { readonly renewal: number; readonly since: number }> = new Map()
  return {
    renewed: (ok) => {
      // A gap is an outage that was noticed by nothing else, or a pause of this process.
      if (!ok || now() - renewedAt > leaseMs / 2) steadySince = now()
      if (ok) renewedAt = now()
    },
    silent: (workers) => {
      const since = (id: WorkerId, renewal: number) => {
        const known = seen.get(id)
        return known?.renewal === renewal ? known.since : now()
      }
      seen = new Map(workers.map(({ worker: { id }, renewal }) => [id, { renewal, since: since(id, renewal) }]))
      const isLong = (since: number) => now() - Math.max(since, steadySince) >= leaseMs
      const steady = now() - renewedAt <= leaseMs / 2
      return new Set(
        workers
          .filter(({ worker, expired }) => steady && expired && isLong(seen.get(worker.id)?.since ?? now()))
          .map(({ worker }) => worker.id),
      )
    },
  }
}

/** A renewal that failed is repeated soon: every other worker does the same once the database is back. */
const pauseAfter = (ok: boolean, leaseMs: number) => (ok ? leaseMs / 3 : Math.min(leaseMs / 15, 1000))

/** Calls `renew` for ever, soon again when it fails. Returns what stops it. */
export function keepRenewing(renew: () => Promise<boolean>, leaseMs: number): () => void {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  const wait = (ok: boolean) => {
    if (stopped) return
    timer = setTimeout(() => void renew().then(wait), pauseAfter(ok, leaseMs))
    timer.unref()
  }
  wait(true)
  return () => {
    stopped = true
    clearTimeout(timer)
  }
}
