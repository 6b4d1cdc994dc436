import { randomUUID } from 'node:crypto'
import type { Claim, Worker } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { WorkerId } from '../domain/ids.ts'
import type { TaskType } from '../domain/task.ts'
import type { Flow, RunningJob } from '../imports/runner.ts'
import { isGone, thisProcess } from '../io/process.ts'
import type { Core } from './core.ts'
import { eraseData, notifyFailure } from './image-data.ts'
import { importFlow } from './import-flow.ts'
import { keepRenewing, type Watch, watchLeases } from './lease.ts'
import { legacyFlow } from './legacy-import.ts'
import { locationFlow } from './location-import.ts'
import { sweepStaging } from './staging.ts'

/** Describes this process so that neighbours can find out whether it still lives; to others the lease alone decides. */
export const thisWorker = (): Worker => ({ id: randomUUID() as WorkerId, ...thisProcess() })

/**
 * Undoes what dead workers left, and what this one could not undo before: half-written data is removed, images go back
 * to `queued`, the data of deleted images is erased, and tasks that have expired are forgotten. Any number of workers
 * may sweep at once; each claim is undone by one of them. A worker is dead when its process is known to be gone, or
 * when it has been silent for too long.
 */
export async function sweep(core: Core, watch: Pick<Watch, 'silent'>): Promise<void> {
  const workers = await core.db.workers.list()
  const silent = watch.silent(workers)
  const dead = new Set(workers.filter(({ worker }) => silent.has(worker.id) || isGone(worker, core.worker)))
  /** What is staged may be on its machine only, so that those who are left there go on with it, if there are any. */
  const hasNeighbours = ({ node }: Worker) =>
    node !== core.worker.node && workers.some((one) => one.worker.node === node && !dead.has(one))
  for (const one of workers) {
    const { worker } = one
    const ours = worker.id === core.worker.id
    if (!ours && !dead.has(one)) continue
    await resumeJobs(core, worker, ours, hasNeighbours(worker))
    for (const claim of await core.db.workers.claims(worker.id)) {
      if (ours && core.attempts.has(claim.attempt)) continue
      if (claim.store === core.imports.staging.id && hasNeighbours(worker)) continue
      try {
        // Ours too: a commit of which nobody could learn the outcome has come to an end before this returns.
        if (await core.db.workers.takeOver(claim, core.worker.id)) {
          await undoClaim(core, { ...claim, worker: core.worker.id })
        }
      } catch (error) {
        core.log.error(`Cannot undo the interrupted upload of image ${claim.imageId} yet`, error)
      }
    }
    if (!ours) await core.db.workers.remove(worker.id)
  }
  // Whoever died may have had no time to tidy up.
  if (workers.some((one) => one.worker.id !== core.worker.id && dead.has(one))) await sweepStaging(core)
  await core.db.tasks.forgetExpired()
  for (const { id, location } of await core.db.images.undropped(1000)) await eraseData(core, id, [location])
}

/** Goes on with the imports of a dead worker, and with those of our own that the database kept us from finishing. */
async function resumeJobs(core: Core, worker: Worker, ours: boolean, hasNeighbours: boolean): Promise<void> {
  if (hasNeighbours) return
  const { runner } = core.imports
  for (const job of await core.db.jobs.list(worker.id)) {
    if (ours && runner.has(job.task)) continue
    const taken = await core.db.jobs.takeOver(job, core.worker.id)
    if (taken === undefined) continue
    core.log.warn(`Task ${job.task} on image ${job.imageId} was interrupted: try ${taken.tries} begins`)
    runner.start(taken, (running) => resumedFlow(core, running))
  }
}

const FLOWS = {
  import: legacyFlow,
  api_image_import: importFlow,
  location_import: locationFlow,
} as const satisfies Record<TaskType, (core: Core, running: RunningJob) => Promise<Flow>>

/** The rest of a job that another process began. */
async function resumedFlow(core: Core, running: RunningJob): Promise<Flow> {
  const task = await core.db.tasks.get(running.job.task, { admin: true, project: undefined })
  return FLOWS[task.type](core, running)
}

async function undoClaim(core: Core, claim: Claim): Promise<void> {
  if (claim.store === core.imports.staging.id) await core.imports.staging.remove(claim.imageId)
  else await sweepStore(core, claim)
  try {
    const image = await core.db.images.settle(claim, { status: 'queued', size: null, virtualSize: null })
    notifyFailure(core, image.id, new ServiceError('internal', 'the upload was interrupted'))
    core.notifier.notify({ type: 'image.update', image })
    core.log.warn(`Image ${claim.imageId} is queued again: its upload was interrupted`)
  } catch (error) {
    if (!hasKind(error, 'not-found', 'conflict')) throw error
  }
}

async function sweepStore(core: Core, claim: Claim): Promise<void> {
  const store = core.stores.byId(claim.store)
  // A store that is not configured any more cannot be cleaned; its image is freed all the same.
  if (store === undefined) core.log.warn(`Store ${claim.store} of an interrupted upload is not configured here`)
  else await store.sweep(claim.imageId, claim.attempt, AbortSignal.timeout(60_000))
}

/** What is old enough for it is in nobody's way. */
const STAGING_SWEEP_MS = 3_600_000

export interface Recovery {
  /** Ends the lease, so that nobody waits for it. */
  stop(): Promise<void>
}

/** Keeps this worker's lease, and sweeps now and every `sweepMs`. Resolves after the first sweep. */
export async function startRecovery(
  core: Core,
  { leaseMs, sweepMs }: { leaseMs: number; sweepMs: number },
): Promise<Recovery> {
  const watch = watchLeases(leaseMs)
  await core.db.workers.renew(core.worker, leaseMs)
  const renew = async (): Promise<boolean> => {
    const ok = await core.db.workers.renew(core.worker, leaseMs).then(
      () => true,
      (error: unknown) => {
        core.log.error('Cannot renew the lease of this worker', error)
        return false
      },
    )
    watch.renewed(ok)
    return ok
  }
  const guarded = (what: string, run: () => Promise<void>) => () =>
    void run().catch((error: unknown) => core.log.error(`Cannot ${what}`, error))
  const stopRenewing = keepRenewing(renew, leaseMs)
  const sweeping = setInterval(
    guarded('sweep', () => sweep(core, watch)),
    sweepMs,
  )
  const tidying = setInterval(
    guarded('sweep the staging area', () => sweepStaging(core)),
    STAGING_SWEEP_MS,
  )
  for (const timer of [sweeping, tidying]) timer.unref()
  await sweep(core, watch)
  await sweepStaging(core).catch((error: unknown) => core.log.error('Cannot sweep the staging area', error))
  return {
    stop: async () => {
      stopRenewing()
      clearInterval(sweeping)
      clearInterval(tidying)
      await core.db.workers.remove(core.worker.id)
    },
  }
}
