import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it } from 'node:test'
import { type ErrorKind, hasKind } from '../domain/errors.ts'
import type { ImageId, LocationUri, ProjectId, TaskId, UserId, WorkerId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import { TASK_SORT_KEYS, type TaskQuery } from '../domain/query.ts'
import type { Task } from '../domain/task.ts'
import { type DatabaseHarness, newImage } from './conformance.ts'
import type { Database, JobChange, JobStart, NewTask, Scope } from './database.ts'

const project = (name: string) => name as ProjectId
const ADMIN: Scope = { admin: true, project: project('admins') }
const as = (name: string): Scope => ({ admin: false, project: project(name) })
const worker = (name: string) => name as WorkerId
const WORKER = worker('worker-1')

const newTask = (change: Partial<NewTask> = {}): NewTask => ({
  id: randomUUID() as TaskId,
  type: 'api_image_import',
  owner: project('owner'),
  input: { backend: ['fast'] },
  imageId: null,
  requestId: 'req-1',
  userId: 'user' as UserId,
  ...change,
})
const query = (change: Partial<TaskQuery> = {}): TaskQuery => ({
  filters: new Map(),
  sort: { key: 'created_at', descending: true },
  marker: undefined,
  limit: 1000,
  ...change,
})
const start = (image: JobStart['image'], change: Partial<JobStart> = {}): JobStart => ({
  task: newTask(typeof image === 'string' ? { imageId: image } : {}),
  image,
  worker: WORKER,
  context: { roles: ['member'] },
  change: {},
  preempted: { status: 'failure', message: 'preempted', keepMs: 1000 },
  ...change,
})

const fails = (kind: ErrorKind, promise: Promise<unknown>, message?: RegExp) =>
  assert.rejects(promise, (error) => hasKind(error, kind) && (message === undefined || message.test(error.message)))
const ids = (items: readonly { readonly id: string }[]) => items.map(({ id }) => id)
const byText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
const holder = ({ properties }: Image) => properties.get('os_glance_import_task')
const SUCCESS: JobChange = { task: { status: 'success', result: { image_id: 'x' }, keepMs: 1000 } }

/** What every database must do with tasks, and with jobs. */
export function taskConformance(harness: DatabaseHarness): void {
  const check = (title: string, body: (db: Database) => Promise<void>) =>
    it(title, { skip: harness.skip?.[title] ?? false }, async (t) => body(await harness.open(t)))
  const checkTwo = (title: string, body: (one: Database, other: Database) => Promise<void>) => {
    const skip = harness.skip?.[title] ?? (harness.openTwice ? false : 'one connection only')
    it(title, { skip }, async (t) => {
      if (harness.openTwice) await body(...(await harness.openTwice(t)))
    })
  }

  describe(`${harness.name}: tasks`, () => {
    check('insert() keeps all that is said, and get() gives it again', async (db) => {
      const given = newTask({ input: { a: [1, null, 'ü'] }, imageId: randomUUID() as ImageId })
      const before = Date.now()
      const task = await db.tasks.insert(given)
      const { createdAt, updatedAt, ...rest } = task
      assert.deepEqual(rest, { ...given, status: 'pending', message: '', result: null, expiresAt: null })
      assert.equal(createdAt.getTime(), updatedAt.getTime())
      assert.ok(Math.abs(createdAt.getTime() - before) < 60_000)
      assert.deepEqual(await db.tasks.get(given.id, ADMIN), task)
      await fails('conflict', db.tasks.insert(given))
    })

    check('a task may have neither owner, image, user, request nor input', async (db) => {
      const given = newTask({ owner: null, input: null, imageId: null, requestId: null, userId: null })
      await db.tasks.insert(given)
      const { owner, input, imageId, requestId, userId } = await db.tasks.get(given.id, as('anybody'))
      assert.deepEqual([owner, input, imageId, requestId, userId], [null, null, null, null, null])
    })

    check('one of another project does not exist', async (db) => {
      const image = randomUUID() as ImageId
      const { id } = await db.tasks.insert(newTask({ imageId: image }))
      for (const scope of [ADMIN, as('owner')]) {
        assert.equal((await db.tasks.get(id, scope)).id, id)
        assert.deepEqual(ids(await db.tasks.list(query(), scope)), [id])
        assert.deepEqual(ids(await db.tasks.ofImage(image, scope)), [id])
      }
      await fails('not-found', db.tasks.get(id, as('other')))
      assert.deepEqual(await db.tasks.list(query(), as('other')), [])
      assert.deepEqual(await db.tasks.ofImage(image, as('other')), [])
      await fails('not-found', db.tasks.list(query({ marker: id }), as('other')))
      await fails('not-found', db.tasks.get(randomUUID() as TaskId, ADMIN))
    })

    check('update() changes what it names, from a status that it names', async (db) => {
      const { id, updatedAt } = await db.tasks.insert(newTask())
      const running = await db.tasks.update(id, { status: 'processing', message: 'm' }, ['pending'])
      assert.deepEqual([running.status, running.message, running.result], ['processing', 'm', null])
      assert.ok(running.updatedAt >= updatedAt)
      await fails('conflict', db.tasks.update(id, { status: 'failure' }, ['pending']))
      await db.tasks.update(id, { message: '' }, ['processing'])
      const end = { status: 'success', result: { image_id: 'i' }, keepMs: 3_600_000 } as const
      const { status, message, result, expiresAt } = await db.tasks.update(id, end, ['processing'])
      assert.deepEqual([status, message, result], ['success', '', { image_id: 'i' }])
      assert.ok(Math.abs((expiresAt?.getTime() ?? 0) - Date.now() - 3_600_000) < 60_000)
      await fails('not-found', db.tasks.update(randomUUID() as TaskId, {}, ['pending']))
    })

    check('insert() makes a change at once', async (db) => {
      const { status, message, expiresAt } = await db.tasks.insert(newTask(), {
        status: 'failure',
        message: 'no',
        keepMs: 60_000,
      })
      assert.deepEqual([status, message, expiresAt === null], ['failure', 'no', false])
    })

    check('a task that has expired does not exist, before and after it is forgotten', async (db) => {
      const image = randomUUID() as ImageId
      const { id } = await db.tasks.insert(newTask({ imageId: image }))
      const kept = await db.tasks.insert(newTask({ imageId: image }), { status: 'success', keepMs: 600_000 })
      await db.tasks.update(id, { status: 'failure', keepMs: 600_000 }, ['pending'])
      assert.equal((await db.tasks.list(query(), ADMIN)).length, 2)
      const other = await db.tasks.insert(newTask())
      assert.equal((await db.tasks.update(other.id, { status: 'failure', keepMs: 0 }, ['pending'])).status, 'failure')
      for (const forget of [false, true]) {
        if (forget) await db.tasks.forgetExpired()
        await fails('not-found', db.tasks.get(other.id, ADMIN))
        assert.deepEqual(new Set(ids(await db.tasks.list(query(), ADMIN))), new Set([id, kept.id]))
        assert.equal((await db.tasks.ofImage(image, ADMIN)).length, 2)
      }
    })

    check('lists are filtered and ordered, and concatenated pages are the list', async (db) => {
      const tasks: Task[] = []
      for (let n = 0; n < 14; n++) {
        const imageId = n % 2 ? (`image-${n % 3}` as ImageId) : null
        const task = newTask({ type: n % 3 ? 'import' : 'location_import', imageId, owner: project(`p${n % 2}`) })
        tasks.push(await db.tasks.insert(task, n % 4 ? {} : { status: 'failure', keepMs: 1_000_000 - n * 1000 }))
      }
      const text = (task: Task, key: TaskQuery['sort']['key']): string => {
        const columns = {
          id: task.id,
          type: task.type,
          status: task.status,
          owner: task.owner,
          image_id: task.imageId,
          request_id: task.requestId,
          user_id: task.userId,
          created_at: task.createdAt.toISOString(),
          updated_at: task.updatedAt.toISOString(),
          expires_at: task.expiresAt?.toISOString(),
        }
        return columns[key] ?? ''
      }
      for (const key of TASK_SORT_KEYS)
        for (const descending of [false, true]) {
          const sort = { key, descending }
          const whole = await db.tasks.list(query({ sort }), ADMIN)
          const keys = key === 'id' ? ([key] as const) : ([key, 'created_at', 'id'] as const)
          const rank = (task: Task): string => keys.map((each) => text(task, each)).join(' ')
          const expected = tasks.map(rank).toSorted(byText)
          assert.deepEqual(whole.map(rank), descending ? expected.toReversed() : expected, `${key} ${descending}`)
          const paged: Task[] = []
          for (let marker: TaskId | undefined; ; ) {
            const page = await db.tasks.list(query({ sort, marker, limit: 3 }), ADMIN)
            paged.push(...page)
            if (page.length < 3) break
            marker = page.at(-1)?.id
          }
          assert.deepEqual(ids(paged), ids(whole))
        }
      const filters = new Map([
        ['type', 'import'],
        ['status', 'pending'],
      ] as const)
      const found = await db.tasks.list(query({ filters }), as('p1'))
      const wanted = tasks.filter(({ type, status, owner }) => `${type} ${status} ${owner}` === 'import pending p1')
      assert.ok(wanted.length > 1)
      assert.deepEqual(new Set(ids(found)), new Set(ids(wanted)))
      assert.deepEqual(await db.tasks.list(query({ limit: 0 }), ADMIN), [])
    })
  })

  describe(`${harness.name}: jobs`, () => {
    const imageIn = async (db: Database) => (await db.images.insert(newImage())).id

    check('begin() gives the image to the task and changes both', async (db) => {
      const id = await imageIn(db)
      const given = start(id, {
        change: { image: { status: 'importing' }, from: ['queued'], task: { status: 'processing' } },
      })
      const { job, image, task, preempted } = await db.jobs.begin(given)
      assert.deepEqual(job, { task: given.task.id, imageId: id, worker: WORKER, tries: 1, context: given.context })
      assert.deepEqual([image.status, holder(image), task.status], ['importing', task.id, 'processing'])
      assert.equal(preempted, undefined)
      assert.deepEqual(await db.images.get(id, ADMIN), image)
      assert.deepEqual(await db.tasks.ofImage(id, ADMIN), [task])
      assert.deepEqual(await db.jobs.list(WORKER), [job])
      assert.deepEqual(await db.jobs.list(worker('worker-2')), [])
    })

    check('begin() may make the image too', async (db) => {
      const given = start(newImage({ properties: new Map([['p', 'v']]) }))
      const { job, image, task } = await db.jobs.begin(given)
      assert.deepEqual([image.status, image.properties.get('p'), holder(image)], ['queued', 'v', given.task.id])
      assert.deepEqual([job.imageId, task.imageId], [image.id, null])
    })

    check('begin() that is refused leaves nothing behind', async (db) => {
      const id = await imageIn(db)
      const wrong = start(id, { change: { image: { status: 'importing' }, from: ['uploading'] } })
      await fails('conflict', db.jobs.begin(wrong), /queued/)
      await fails('not-found', db.tasks.get(wrong.task.id, ADMIN))
      assert.equal(holder(await db.images.get(id, ADMIN)), undefined)
      assert.deepEqual(await db.jobs.list(WORKER), [])
      await fails('not-found', db.jobs.begin(start(randomUUID() as ImageId)))
      assert.deepEqual(await db.tasks.list(query(), ADMIN), [])
    })

    check('an image has one job at a time, and may have the next when that has ended', async (db) => {
      const id = await imageIn(db)
      for (let round = 0; round < 3; round++) {
        const results = await Promise.allSettled(Array.from({ length: 4 }, () => db.jobs.begin(start(id))))
        const [won, ...more] = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.job] : []))
        assert.ok(won && more.length === 0)
        await fails('conflict', db.jobs.begin(start(id)), /^Image has active task$/)
        const { image, task } = await db.jobs.finish(won, SUCCESS)
        assert.deepEqual([image && holder(image), task.status], [undefined, 'success'])
      }
      assert.deepEqual(await db.jobs.list(WORKER), [])
      assert.equal((await db.tasks.ofImage(id, ADMIN)).length, 3)
    })

    checkTwo('of two processes that begin at once one wins', async (one, other) => {
      for (let round = 0; round < 5; round++) {
        const id = await imageIn(one)
        const results = await Promise.allSettled([one, other, one, other].map((db) => db.jobs.begin(start(id))))
        const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
        assert.equal(refused.length, 3)
        assert.ok(refused.every((reason) => hasKind(reason, 'conflict')))
      }
      assert.equal((await other.jobs.list(WORKER)).length, 5)
    })

    check('what a held image allows: changes, activation and deletion', async (db) => {
      const id = await imageIn(db)
      const { job } = await db.jobs.begin(start(id))
      const changed = await db.images.update(id, { name: 'n', setProperties: new Map([['p', 'v']]) }, ['queued'])
      assert.deepEqual([changed.name, holder(changed)], ['n', job.task])
      await db.images.remove(id, ['queued'])
      await fails('not-found', db.jobs.advance(job, { task: { message: 'm' } }))
    })

    check('advance() saves the image and the task, or neither', async (db) => {
      const { job, image } = await db.jobs.begin(start(await imageIn(db)))
      const uri = 'file:///x' as LocationUri
      const saved = await db.jobs.advance(job, {
        image: { status: 'importing', addLocations: [{ uri, store: undefined, metadata: {} }] },
        from: ['queued'],
        task: { status: 'processing', message: 'Copied 1 MiB' },
      })
      assert.deepEqual([saved.image.status, saved.image.locations[0]?.uri], ['importing', uri])
      assert.deepEqual([saved.task.status, saved.task.message], ['processing', 'Copied 1 MiB'])
      const refused = { image: { name: 'late' }, from: ['queued'], task: { message: 'late' } } as const
      await fails('conflict', db.jobs.advance(job, refused))
      assert.deepEqual(await db.images.get(image.id, ADMIN), saved.image)
      assert.deepEqual(await db.tasks.get(job.task, ADMIN), saved.task)
      assert.equal((await db.jobs.advance(job, { task: { message: 'only' } })).task.message, 'only')
    })

    check('finish() saves the last step, or nothing when the status is wrong', async (db) => {
      const { job } = await db.jobs.begin(start(await imageIn(db)))
      const wrong = { ...SUCCESS, image: { status: 'active' }, from: ['importing'] } as const
      await fails('conflict', db.jobs.finish(job, wrong))
      assert.deepEqual(await db.jobs.list(WORKER), [job])
      const { image, task } = await db.jobs.finish(job, { ...SUCCESS, image: { status: 'active', size: 3 } })
      assert.deepEqual([image?.status, image?.size, image && holder(image)], ['active', 3, undefined])
      assert.deepEqual([task.status, task.result, task.expiresAt === null], ['success', { image_id: 'x' }, false])
      await fails('conflict', db.jobs.finish(job, {}))
    })

    check('finish() of a deleted image forgets the job, and the task has failed', async (db) => {
      const { job, image } = await db.jobs.begin(start(await imageIn(db)))
      await db.images.remove(image.id, ['queued'])
      const ended = await db.jobs.finish(job, { ...SUCCESS, image: { status: 'active' }, from: ['importing'] })
      assert.equal(ended.image, undefined)
      assert.deepEqual([ended.task.status, ended.task.result], ['failure', null])
      assert.match(ended.task.message, /deleted/)
      assert.deepEqual(await db.jobs.list(WORKER), [])

      const second = await db.jobs.begin(start(await imageIn(db)))
      await db.images.remove(second.image.id, ['queued'])
      const { task } = await db.jobs.finish(second.job, { task: { status: 'failure', message: 'mine', keepMs: 1000 } })
      assert.equal(task.message, 'mine')
    })

    check('a job is taken over once, and is no business of its former worker any more', async (db) => {
      const { job, image } = await db.jobs.begin(start(await imageIn(db)))
      const results = await Promise.all(['a', 'b', 'c'].map((name) => db.jobs.takeOver(job, worker(name))))
      const [taken, ...more] = results.filter((result) => result !== undefined)
      assert.ok(taken && more.length === 0)
      assert.deepEqual(taken, { ...job, worker: taken.worker, tries: 2 })
      assert.deepEqual(await db.jobs.list(taken.worker), [taken])
      await fails('conflict', db.jobs.advance(job, { image: { name: 'zombie' } }))
      await fails('conflict', db.jobs.finish(job, SUCCESS))
      // Not even when the same worker gets it back.
      const back = await db.jobs.takeOver(taken, WORKER)
      assert.equal(back?.tries, 3)
      await fails('conflict', db.jobs.advance(job, { image: { name: 'zombie' } }))
      assert.equal((await db.images.get(image.id, ADMIN)).name, 'cirros')
      assert.ok(back && (await db.jobs.finish(back, SUCCESS)))
      assert.equal(await db.jobs.takeOver(back, worker('d')), undefined)
    })

    checkTwo('of two processes that take over at once one wins', async (one, other) => {
      for (let round = 0; round < 5; round++) {
        const { job } = await one.jobs.begin(start(await imageIn(one)))
        const taken = await Promise.all([
          one.jobs.takeOver(job, worker(`a${round}`)),
          other.jobs.takeOver(job, worker(`b${round}`)),
        ])
        assert.equal(taken.filter((each) => each !== undefined).length, 1)
      }
    })

    check('a worker with jobs is not forgotten', async (db) => {
      const known = async () => (await db.workers.list()).length
      await db.workers.renew({ id: WORKER, node: 'n', pid: 1, startedAt: 1 }, 1000)
      const { job } = await db.jobs.begin(start(await imageIn(db)))
      await db.workers.remove(WORKER)
      assert.equal(await known(), 1)
      await db.jobs.finish(job, SUCCESS)
      await db.workers.remove(WORKER)
      assert.equal(await known(), 0)
    })

    check('an image that is held by a task nobody knows is free', async (db) => {
      const held = newImage({ properties: new Map([['os_glance_import_task', randomUUID()]]) })
      await db.images.insert(held)
      const { image, task, preempted } = await db.jobs.begin(start(held.id))
      assert.deepEqual([holder(image), preempted], [task.id, undefined])
    })

    check('an image that is held by a task without a job is not free before its time', async (db) => {
      for (const status of ['pending', 'processing', 'success', 'failure'] as const) {
        const { id } = await db.tasks.insert(newTask(), { status, keepMs: 1_000_000 })
        const held = newImage({ properties: new Map([['os_glance_import_task', id]]) })
        await db.images.insert(held)
        await fails('conflict', db.jobs.begin(start(held.id)), /^Image has active task$/)
      }
    })

    check('a job whose image another task took changes it no more', async (db) => {
      const { job, image } = await db.jobs.begin(start(await imageIn(db)))
      const thief = new Map([['os_glance_import_task', randomUUID()]])
      await db.images.update(image.id, { setProperties: thief }, ['queued'])
      await fails('conflict', db.jobs.advance(job, { image: { name: 'late' } }))
      await fails('conflict', db.jobs.finish(job, { ...SUCCESS, image: { name: 'late' } }))
      const after = await db.images.get(image.id, ADMIN)
      assert.deepEqual([after.name, holder(after)], ['cirros', thief.get('os_glance_import_task')])
      assert.deepEqual(await db.jobs.list(WORKER), [])
      assert.equal((await db.tasks.get(job.task, ADMIN)).status, 'failure')
    })
  })
}
