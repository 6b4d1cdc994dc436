import type { Database, ImageChange, Job, JobChange } from '../db/database.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, TaskId } from '../domain/ids.ts'
import type { Image, ImageStatus } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'
import type { Log } from '../log.ts'
import type { Step } from './import.ts'

/** A job as its flow sees it. */
export interface RunningJob {
  readonly job: Job
  readonly log: Log
  /** As last saved or loaded. Throws `not-found` when the image is gone. */
  image(): Image
  /** Whether the image was deleted; all that is left to do is to undo. */
  gone(): boolean
  /** Saves a change while the job is still ours: throws `conflict` when it is not, `not-found` when the image is gone. */
  save(change: ImageChange, from?: readonly ImageStatus[]): Promise<Image>
  /** Bytes done so far in this step. Cheap: may be called for every chunk. */
  progress(bytes: number): void
}

/** What a job does, from beginning to end. It is built anew when another process takes the job over. */
export interface Flow {
  /** In order. When one fails, all of them are undone, last things first. */
  readonly steps: readonly Step[]
  /** Saved in the unit that ends the job well: nothing is undone after it. */
  done(): Pick<JobChange, 'image' | 'from'> & { readonly result: unknown }
  /** What was wrong with `done`, in words for the owner. */
  explain?(error: unknown): unknown
  /** Saved in the unit that ends the job after everything was undone. */
  failed(error: unknown): ImageChange
  /** Tidies up when the job has ended; `image` is as saved when it ended well. */
  ended(image?: Image): Promise<void>
}

/** Does jobs in the background, so many at a time. */
export interface Runner {
  /** Returns at once. `flow` must not look at the image, which may be gone, before its steps run. */
  start(job: Job, flow: (running: RunningJob) => Promise<Flow>): void
  /** Whether this process is busy with the job, or will be. */
  has(task: TaskId): boolean
  /** Tells jobs on the image to look now whether it is still there. */
  look(image: ImageId): void
  /** Lets jobs end for `graceMs`, then interrupts them; what has not ended is left to whoever takes it over. */
  stop(graceMs: number): Promise<void>
}

export interface RunnerOptions {
  readonly db: Pick<Database, 'jobs'>
  readonly log: Log
  /** Jobs at a time. */
  readonly limit: number
  /** How long the owner can look a task up after its end. */
  readonly keepMs: number
  /** Hears of every change of a task's status. */
  onTask(task: Task): void
  /** How often progress is saved; by this, too, a job learns that it was taken away or its image deleted. */
  readonly progressMs?: number
}

/** A job that was interrupted so often is not begun again: it may be what ends its workers. */
const MAX_TRIES = 5
/** What cannot be undone by then (a store that does not come back) is given up, so that no image is held for ever. */
const LAST_TRY = 20

export function openRunner(options: RunnerOptions): Runner {
  const stopping = new AbortController()
  const known = new Set<TaskId>()
  const waiting: (() => void)[] = []
  const running = new Set<Promise<void>>()
  const looks: Looks = new Set()

  const next = () => {
    if (stopping.signal.aborted || running.size >= options.limit) return
    waiting.shift()?.()
  }
  return {
    start: (job, flow) => {
      known.add(job.task)
      waiting.push(() => {
        const work = runJob(options, job, flow, looks, stopping.signal).finally(() => {
          running.delete(work)
          known.delete(job.task)
          next()
        })
        running.add(work)
      })
      next()
    },
    has: (task) => known.has(task),
    look: (image) => {
      for (const look of looks) look(image)
    },
    stop: async (graceMs) => {
      waiting.length = 0
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, graceMs)
      })
      await Promise.race([Promise.all(running), late])
      clearTimeout(timer)
      stopping.abort(new ServiceError('unavailable', 'The service is shutting down'))
      await Promise.all(running)
    },
  }
}

/** What may become of a job while it runs, other than that a step fails. */
type Fate = 'ours' | 'image gone' | 'left'

type Looks = Set<(image: ImageId) => void>

/** Never rejects. */
async function runJob(
  { db, log, keepMs, onTask, progressMs = 5000 }: RunnerOptions,
  job: Job,
  build: (running: RunningJob) => Promise<Flow>,
  looks: Looks,
  stopping: AbortSignal,
): Promise<void> {
  const interrupt = new AbortController()
  const signal = AbortSignal.any([interrupt.signal, stopping])
  let fate = 'ours' as Fate
  let image: Image | undefined
  let task: Task | undefined
  let bytes: number | undefined

  const settle = (to: Fate, error: unknown) => {
    if (fate !== 'ours') return
    fate = to
    interrupt.abort(error)
  }
  /** What the database says decides whose the job is: when it does not answer, nobody knows, and the job is left. */
  const judge = (error: unknown) => {
    if (hasKind(error, 'not-found')) settle('image gone', deleted(job, error))
    else if (!hasKind(error, 'too-large', 'invalid')) settle('left', error)
  }
  const advance = async (change: JobChange): Promise<void> => {
    const before = task?.status
    const saved = await db.jobs.advance(job, change)
    ;({ image, task } = saved)
    if (task.status !== before && change.task?.status !== undefined) onTask(task)
  }
  const message = () => (bytes === undefined ? {} : { message: `Copied ${Math.floor(bytes / 1_048_576)} MiB` })

  const handle: RunningJob = {
    job,
    log,
    image: () => {
      if (image === undefined) throw deleted(job)
      return image
    },
    gone: () => image === undefined || fate === 'image gone',
    save: async (change, from) => {
      try {
        await advance({ image: change, ...(from === undefined ? {} : { from }) })
      } catch (error) {
        judge(error)
        throw error
      }
      return handle.image()
    },
    progress: (done) => {
      bytes = done
    },
  }

  let telling = false
  const tell = async () => {
    if (telling || fate !== 'ours') return
    telling = true
    // Even when there is nothing new: upstream's Glance takes a task for dead that nobody has touched for an hour.
    await db.jobs.advance(job, { task: message() }).catch((error: unknown) => {
      if (hasKind(error, 'conflict', 'not-found')) judge(error)
    })
    telling = false
  }
  const ticker = setInterval(() => void tell(), progressMs)
  const look = (image: ImageId) => {
    if (image === job.imageId) void tell()
  }
  looks.add(look)

  /** Whether everything that the steps did is taken back. It stops at what cannot be, so that a later try finds the rest. */
  const undo = async (flow: Flow): Promise<boolean> => {
    for (const step of flow.steps.toReversed()) {
      try {
        await step.undo?.()
      } catch (error) {
        if (hasKind(error, 'not-found') && fate === 'image gone') continue
        log.error(`Step ${step.name} of task ${job.task} cannot be undone`, error)
        if (job.tries < LAST_TRY) return false
      }
    }
    return true
  }
  const fail = async (flow: Flow, error: unknown): Promise<void> => {
    log.warn(`Task ${job.task} on image ${job.imageId} failed`, error)
    if (!(await undo(flow)) || fate === 'left') return
    const change = image === undefined || fate === 'image gone' ? {} : { image: flow.failed(error) }
    const ended = await db.jobs.finish(job, {
      ...change,
      task: { status: 'failure', message: wordsFor(error), keepMs },
    })
    onTask(ended.task)
    await tidy(flow)
  }
  const tidy = (flow: Flow, saved?: Image) =>
    flow.ended(saved).catch((error: unknown) => log.warn(`What task ${job.task} staged is swept later`, error))

  /** Ends the job well; or tells the reason for which everything is to be undone. */
  const proceed = async (flow: Flow): Promise<{ readonly failed: unknown } | undefined> => {
    try {
      if (job.tries > MAX_TRIES) throw new ServiceError('unavailable', 'The import was interrupted too often')
      for (const step of flow.steps) {
        signal.throwIfAborted()
        bytes = undefined
        await step.run(signal)
      }
      signal.throwIfAborted()
    } catch (error) {
      return { failed: fate === 'image gone' ? interrupt.signal.reason : error }
    }
    const { result, ...change } = flow.done()
    try {
      const task = { status: 'success', result, keepMs, ...message() } as const
      const ended = await db.jobs.finish(job, { ...change, task })
      onTask(ended.task)
      if (ended.image === undefined) {
        // The job is forgotten, only its traces are left.
        settle('image gone', deleted(job))
        await undo(flow)
      }
      await tidy(flow, ended.image)
      return undefined
    } catch (error) {
      judge(error)
      return { failed: flow.explain?.(error) ?? error }
    }
  }

  try {
    await advance({ task: { status: 'processing' } }).catch((error: unknown) => {
      judge(error)
      if (fate !== 'image gone') throw error
    })
    const flow = await build(handle)
    const outcome = await proceed(flow)
    if (outcome === undefined) return
    if (fate === 'left' || stopping.aborted)
      log.warn(`Task ${job.task} is left to whoever takes it over`, outcome.failed)
    else await fail(flow, outcome.failed)
  } catch (error) {
    log.error(`Task ${job.task} is left for the next sweep`, error)
    // It was taken over, or somebody else holds the image: a job that is ours all the same is forgotten by this.
    if (hasKind(error, 'conflict')) await db.jobs.finish(job, { task: preempted }).catch(() => undefined)
  } finally {
    clearInterval(ticker)
    looks.delete(look)
  }
}

const preempted = { status: 'failure', message: 'Another task works on the image' } as const

const deleted = ({ imageId }: Job, cause?: unknown) =>
  new ServiceError('not-found', `Image ${imageId} has been deleted, aborting import.`, { cause })

/** What the owner reads. Errors that are not written for clients say nothing. */
const wordsFor = (error: unknown): string =>
  error instanceof ServiceError && error.kind !== 'internal' ? error.message : 'Task failed due to Internal Error'
