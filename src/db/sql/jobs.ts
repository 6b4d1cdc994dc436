import { sql } from 'kysely'
import { ServiceError } from '../../domain/errors.ts'
import type { ImageId, StoreId, TaskId, WorkerId } from '../../domain/ids.ts'
import { type Image, type ImageStatus, TRANSITIONS } from '../../domain/image.ts'
import type { Task } from '../../domain/task.ts'
import type { Job, JobChange, JobRepository, JobStart, TaskChange } from '../database.ts'
import { imageRows } from './image-rows.ts'
import { imageWriter } from './image-writer.ts'
import type { LocationCipher } from './location-cipher.ts'
import type { Connection, Session } from './session.ts'
import { slot } from './statement.ts'
import { taskRows } from './task-rows.ts'

/** Upstream's times (glance/api/v2/images.py, `_enforce_import_lock`): a pending task may only be about to run. */
const STALE_MS = 3_600_000
const STALE_PENDING_MS = 2 * STALE_MS

/** Names the task that holds the image. */
const LOCK = 'os_glance_import_task'
const STORE_LISTS = ['os_glance_importing_to_stores', 'os_glance_failed_import'] as const

const ANY_STATUS = Object.keys(TRANSITIONS) as ImageStatus[]
const RUNNING = ['pending', 'processing'] as const
const held = () => new ServiceError('conflict', 'Image has active task')
const lost = ({ task, imageId }: Job) =>
  new ServiceError('conflict', `Task ${task} does not work on image ${imageId} any more`)

interface JobRow {
  readonly task: string
  readonly image_id: string
  readonly worker: string
  readonly tries: number
  readonly context: string
}

const toJob = ({ task, image_id, worker, tries, context }: JobRow): Job => ({
  task: task as TaskId,
  imageId: image_id as ImageId,
  worker: worker as WorkerId,
  tries,
  context: JSON.parse(context) as unknown,
})

/** What takes the stores of a task that was preempted from the image's lists; upstream sets both lists or none. */
const withoutStores = (image: Image, task: Task): ReadonlyMap<string, string> => {
  const backend = (task.input as { backend?: unknown } | null)?.backend
  const stores = new Set<unknown>(Array.isArray(backend) ? (backend as StoreId[]) : [])
  const lists = STORE_LISTS.map((name) => {
    const before = image.properties.get(name) ?? ''
    const after = before.split(',').filter((store) => !stores.has(store))
    return { name, before, after: after.join(',') }
  })
  return new Map(
    lists.some(({ before, after }) => before !== after) ? lists.map(({ name, after }) => [name, after]) : [],
  )
}

const withoutImage = ({ imageId }: Job, change: TaskChange = {}): TaskChange => {
  const { result: _, ...rest } = change
  return change.status === 'success'
    ? { ...rest, status: 'failure', message: `Image ${imageId} was deleted meanwhile` }
    : change
}

export const jobRepository = (connection: Connection, cipher: LocationCipher): JobRepository => {
  const { facts, kysely, fixed: prepare, read, write } = connection
  const images = imageWriter(connection, imageRows(connection, cipher), cipher)
  const tasks = taskRows(connection)

  const living = sql<boolean>`not deleted`
  const taskId = slot<string>('task')
  const now = facts.timeIn(0)
  const lock = kysely
    .updateTable('image_properties')
    .where('image_id', '=', slot<string>('image'))
    .where('name', '=', LOCK)
  const ours = kysely
    .updateTable('glimpse_jobs')
    .where('task', '=', taskId)
    .where('worker', '=', slot<string>('worker'))
    .where('tries', '=', slot<number>('tries'))
  const statements = {
    // As upstream takes the lock: revive a dead row, or insert one where the unique key lets only one succeed.
    reviveLock: prepare(
      lock.set({ value: taskId, updated_at: now, deleted: false, deleted_at: null }).where('deleted', '=', true),
    ),
    insertLock: prepare(
      kysely.insertInto('image_properties').values({
        image_id: slot('image'),
        name: LOCK,
        value: taskId,
        created_at: now,
        updated_at: now,
        deleted: false,
        deleted_at: null,
      }),
    ),
    stealLock: prepare(
      lock.set({ value: taskId, updated_at: now }).where('value', '=', slot<string>('from')).where(living),
    ),
    dropLock: prepare(
      kysely
        .deleteFrom('image_properties')
        .where('image_id', '=', slot<string>('image'))
        .where('name', '=', LOCK)
        .where('value', '=', taskId)
        .where(living),
    ),
    age: prepare(
      sql<{ age: number; ours: number | boolean }>`select ${facts.age(sql`coalesce(updated_at, created_at)`)} as age,
        exists (select 1 from glimpse_jobs where task = ${taskId}) as ours from tasks where id = ${taskId}`,
    ),

    insert: prepare(
      kysely
        .insertInto('glimpse_jobs')
        .values({ task: taskId, image_id: slot('image'), worker: slot('worker'), tries: 1, context: slot('context') }),
    ),
    hold: prepare(ours.set({ tries: slot<number>('tries') })),
    takeOver: prepare(ours.set({ worker: slot<string>('by'), tries: sql<number>`tries + 1` })),
    forget: prepare(kysely.deleteFrom('glimpse_jobs').where('task', '=', taskId)),
    list: prepare<JobRow>(
      kysely.selectFrom('glimpse_jobs').selectAll().where('worker', '=', slot<string>('worker')).orderBy('task'),
    ),
  }

  /** Takes the image from the task `holder`. Throws `conflict` unless that is stale. */
  const preempt = async (session: Session, image: Image, holder: TaskId, to: TaskId, change: TaskChange) => {
    const task = await tasks.find(session, holder)
    if (task) {
      const { age = 0, ours = true } = (await session.first(statements.age, { task: holder })) ?? {}
      if (ours || age < (task.status === 'pending' ? STALE_PENDING_MS : STALE_MS)) throw held()
    }
    const values = { image: image.id, task: to, from: holder }
    if ((await session.change(statements.stealLock, values)) === 0) throw held()
    if (!task) return undefined
    const ended = await tasks.change(session, holder, change, RUNNING)
    const setProperties = withoutStores(image, task)
    if (setProperties.size > 0) await images.apply(session, image.id, { setProperties }, ANY_STATUS)
    return ended ? tasks.load(session, holder) : undefined
  }

  const acquire = async (session: Session, image: Image, { task, preempted }: JobStart): Promise<Task | undefined> => {
    const holder = image.properties.get(LOCK)
    if (holder !== undefined) return preempt(session, image, (holder ?? '') as TaskId, task.id, preempted)
    const values = { image: image.id, task: task.id }
    if ((await session.change(statements.reviveLock, values)) === 0) await session.change(statements.insertLock, values)
    return undefined
  }

  const hold = async (session: Session, { task, worker, tries }: Job) => {
    if ((await session.change(statements.hold, { task, worker, tries })) > 0) return
    throw new ServiceError('conflict', `Task ${task} is not worked on by this process any more`)
  }

  const applyTo = async (session: Session, image: Image, { image: change, from = ANY_STATUS }: JobChange) =>
    change ? images.apply(session, image.id, change, from) : image

  const changeTask = async (session: Session, id: TaskId, change: TaskChange | undefined): Promise<Task> => {
    if (change) await tasks.change(session, id, change, RUNNING)
    return tasks.load(session, id)
  }

  return {
    begin: (start) =>
      write(async (session) => {
        const { task, image, worker, context, change } = start
        await session.guard('image', typeof image === 'string' ? image : image.id)
        const before = await (typeof image === 'string' ? images.load(session, image) : images.insert(session, image))
        const preempted = await acquire(session, before, start)
        await tasks.insert(session, task)
        await session.change(statements.insert, {
          task: task.id,
          image: before.id,
          worker,
          context: JSON.stringify(context ?? null),
        })
        return {
          job: { task: task.id, imageId: before.id, worker, tries: 1, context },
          image: await applyTo(session, await images.load(session, before.id), change),
          task: await changeTask(session, task.id, change.task),
          preempted,
        }
      }),

    advance: (job, change) =>
      write(async (session) => {
        await hold(session, job)
        const before = await images.load(session, job.imageId)
        if (before.properties.get(LOCK) !== job.task) throw lost(job)
        return {
          image: await applyTo(session, before, change),
          task: await changeTask(session, job.task, change.task),
        }
      }),

    finish: async (job, change) => {
      // What is thrown inside a transaction undoes it, and a job that lost its image is to be forgotten.
      const ended = await write(async (session) => {
        await hold(session, job)
        await session.change(statements.forget, { task: job.task })
        if (!(await images.status(session, job.imageId)))
          return { image: undefined, task: await changeTask(session, job.task, withoutImage(job, change.task)) }
        if ((await session.change(statements.dropLock, { task: job.task, image: job.imageId })) === 0) {
          await changeTask(session, job.task, { ...change.task, status: 'failure', message: lost(job).message })
          return lost(job)
        }
        const image = await applyTo(session, await images.load(session, job.imageId), change)
        return { image, task: await changeTask(session, job.task, change.task) }
      })
      if (ended instanceof ServiceError) throw ended
      return ended
    },

    list: (worker) => read(async (session) => (await session.all(statements.list, { worker })).map(toJob)),

    takeOver: (job, by) =>
      write(async (session) => {
        const { task, worker, tries } = job
        const taken = (await session.change(statements.takeOver, { task, worker, tries, by })) > 0
        return taken ? { ...job, worker: by, tries: tries + 1 } : undefined
      }),
  }
}
