import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { lapsed } from '../../test/support/lapsed.ts'
import { until } from '../../test/support/product.ts'
import { type Identity, NOBODY } from '../auth/identity.ts'
import type { Job } from '../db/database.ts'
import { openDatabase } from '../db/sql/connect.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, ProjectId, UserId, WorkerId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'
import { copyImage } from '../imports/copy-image.ts'
import { glanceDirect } from '../imports/glance-direct.ts'
import type { ImportMethod, ImportPlugin, Step } from '../imports/import.ts'
import { type Flow, openRunner, type Runner } from '../imports/runner.ts'
import { openStaging } from '../imports/staging.ts'
import { noKeys } from '../keys/key-manager.ts'
import { silentLog } from '../log.ts'
import { silentNotifier } from '../notify/notifier.ts'
import { openPolicy } from '../policy/enforcer.ts'
import { UNPROTECTED } from '../policy/property-protection.ts'
import { fileStore } from '../store/drivers/file.ts'
import { openMemoryDriver } from '../store/drivers/memory.ts'
import { openStores } from '../store/stores.ts'
import type { Core, RequestContext } from './core.ts'
import { uploadImage } from './image-data.ts'
import { createImage, deleteImage } from './images.ts'
import { importImage } from './imports.ts'
import { sweep, thisWorker } from './recovery.ts'
import { stageImage, sweepStaging } from './staging.ts'

const DATA = Buffer.from('image data of no known format '.repeat(10_000))
const MD5 = createHash('md5').update(DATA).digest('hex')
const ADMIN = { admin: true, project: undefined } as const
const STORES = ['cheap', 'fast', 'slow'] as const

const identity: Identity = {
  ...NOBODY,
  userId: 'alice' as UserId,
  projectId: 'p1' as ProjectId,
  roles: ['admin', 'member', 'reader'],
}
const context: RequestContext = {
  requestId: 'req-test',
  identity,
  isAdmin: true,
  scope: ADMIN,
  signal: new AbortController().signal,
}
async function* bytes() {
  yield DATA
}

/** Stages by itself, as downloads do. */
const fetching: ImportMethod = {
  name: 'fetch',
  from: 'queued',
  steps: ({ staging, imageId }) => [
    {
      name: 'fetch',
      run: async (signal) => {
        if ((await staging.size(imageId)) === undefined) await staging.write(imageId, bytes(), { signal })
      },
      undo: () => staging.remove(imageId),
    },
  ],
}
const named: ImportPlugin = {
  name: 'named',
  step: (job) => ({
    name: 'named',
    run: async () => void (await job.save({ setProperties: new Map([['imported_by', job.requester.roles.join()]]) })),
    undo: async () => {
      await job.save({ unsetProperties: ['imported_by'] }).catch((error: unknown) => {
        if (!hasKind(error, 'not-found')) throw error
      })
    },
  }),
}

type Wrap = (steps: readonly Step[]) => readonly Step[]

async function setUp(t: TestContext, change: Partial<Core['limits']> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-imports-'))
  const db = await openDatabase('sqlite://')
  const kept = Object.fromEntries(STORES.map((id) => [id, new Map<string, Buffer>()]))
  const stores = openStores({
    multi: true,
    defaultStore: 'fast',
    stores: STORES.map((id) => ({ id, driver: openMemoryDriver({ data: kept[id] ?? new Map() }) })),
  })
  const defaults = Object.fromEntries(Object.entries(fileStore.options).map(([name, option]) => [name, option.default]))
  const driver = await fileStore.open({ ...(defaults as object), filesystem_store_datadir: dir } as never)
  const tasks: Task[] = []
  const options = { db, log: silentLog, limit: 2, keepMs: 60_000, progressMs: 20 }
  const runner = openRunner({ ...options, onTask: (task) => void tasks.push(task) })
  let wrap: Wrap = (steps) => steps
  const wrapping: Runner = {
    ...runner,
    start: (job, build) =>
      runner.start(job, async (running) => {
        const flow: Flow = await build(running)
        return { ...flow, steps: wrap(flow.steps) }
      }),
  }
  const core: Core = {
    limits: {
      properties: 128,
      tags: 128,
      members: 128,
      locations: 10,
      imageSize: 1 << 20,
      storage: -1,
      pageDefault: 25,
      pageMax: 1000,
      ...change,
    },
    dataRules: { hashAlgorithm: 'sha512', requireFormatMatch: true, vmdkAllowedTypes: [], gptNonfatal: [] },
    db,
    stores,
    keys: noKeys,
    imports: {
      methods: [glanceDirect, copyImage(stores), fetching],
      offered: ['glance-direct', 'copy-image', 'fetch'],
      plugins: [named],
      staging: openStaging(driver, dir),
      runner: wrapping,
      selfUrl: undefined,
      relay: async () => assert.fail('there is no other node'),
    },
    policy: openPolicy({
      policyFile: '/nonexistent',
      policyDirs: [],
      defaultRule: 'default',
      enforceNewDefaults: true,
      warn: () => undefined,
    }),
    protection: UNPROTECTED,
    notifier: silentNotifier,
    worker: thisWorker(),
    locationRules: { secureHash: true, retries: 0 },
    uriFilter: { admits: async () => true },
    delayedDelete: false,
    taskKeepMs: 60_000,
    attempts: new Set(),
    log: silentLog,
  }
  await db.workers.renew(core.worker, 60_000)
  t.after(async () => {
    await runner.stop(0)
    await stores.close()
    await db.close()
    await rm(dir, { recursive: true })
  })
  return {
    core,
    dir,
    kept,
    runner,
    wrapSteps: (by: Wrap) => {
      wrap = by
    },
  }
}
type Setup = Awaited<ReturnType<typeof setUp>>

const METHODS = ['glance-direct', 'copy-image', 'fetch'] as const

/** An image that is what the method wants, and what its stores hold. */
async function prepare({ core }: Setup, name: (typeof METHODS)[number]): Promise<Image> {
  const draft = { diskFormat: 'raw', containerFormat: 'bare', tags: [], properties: new Map() }
  const image = await createImage(core, context, draft)
  if (name === 'glance-direct') await stageImage(core, context, image.id, { body: bytes })
  if (name === 'copy-image') await uploadImage(core, context, image.id, { body: bytes, store: 'fast' })
  return core.db.images.get(image.id, ADMIN)
}

async function begin({ core }: Setup, { id }: Image, name: string, change: object = {}): Promise<void> {
  const method = core.imports.methods.find((each) => each.name === name)
  assert.ok(method)
  const stores = name === 'copy-image' ? ['cheap', 'slow'] : [...STORES]
  const body = { method: { name }, stores, ...change }
  await importImage(core, context, id, {
    method,
    members: { name },
    stores,
    allStores: false,
    allMustSucceed: true,
    body,
  })
}

async function ended({ core }: Setup, { id }: Image): Promise<Task> {
  let task: Task | undefined
  await until('the end of the task', async () => {
    task = (await core.db.tasks.ofImage(id, ADMIN)).at(-1)
    return task?.status === 'success' || task?.status === 'failure'
  })
  assert.ok(task)
  const { id: taskId } = task
  await until('the end of the job', () => !core.imports.runner.has(taskId))
  return task
}

const imageOf = ({ core }: Setup, { id }: Image) => core.db.images.get(id, ADMIN)

async function assertDone(setup: Setup, before: Image, stores: readonly string[] = STORES): Promise<void> {
  const image = await imageOf(setup, before)
  assert.equal(image.status, 'active')
  assert.deepEqual([image.size, image.checksum], [DATA.length, MD5])
  assert.deepEqual(image.locations.map(({ store }) => store).toSorted(), stores)
  for (const store of STORES)
    assert.deepEqual(setup.kept[store]?.get(image.id), stores.includes(store) ? DATA : undefined)
  assert.equal(image.properties.get('os_glance_importing_to_stores'), '')
  assert.equal(image.properties.has('os_glance_import_task'), false)
  assert.equal(image.properties.get('imported_by'), before.status === 'active' ? undefined : 'admin,member,reader')
  await assertTidy(setup)
}

async function assertUndone(setup: Setup, before: Image): Promise<void> {
  const image = await imageOf(setup, before)
  assert.equal(image.status, before.status === 'active' ? 'active' : 'queued')
  assert.equal(image.size, before.status === 'active' ? DATA.length : null)
  assert.deepEqual(image.locations, before.locations)
  for (const store of STORES)
    assert.equal(setup.kept[store]?.size, before.locations.some((location) => location.store === store) ? 1 : 0)
  assert.equal(image.properties.get('os_glance_importing_to_stores'), '')
  assert.notEqual(image.properties.get('os_glance_failed_import'), '')
  assert.equal(image.properties.has('os_glance_import_task'), false)
  assert.equal(image.properties.has('imported_by'), false)
  await assertTidy(setup)
}

async function assertTidy({ core, dir }: Setup): Promise<void> {
  assert.deepEqual(await readdir(dir), [], 'nothing is staged')
  assert.deepEqual(await core.db.jobs.list(core.worker.id), [])
}

const NO_MORE = new ServiceError('unavailable', 'this step fails')
/** How many steps each flow has at most; that there are fewer is no harm. */
const STEPS = [0, 1, 2, 3, 4]

for (const name of METHODS) {
  describe(`import by ${name}`, () => {
    it('brings the data into every store', async (t) => {
      const setup = await setUp(t)
      const image = await prepare(setup, name)
      await begin(setup, image, name)
      const task = await ended(setup, image)
      assert.deepEqual(
        [task.status, task.message, task.result],
        ['success', 'Copied 0 MiB', { image_id: image.id }],
        task.message,
      )
      await assertDone(setup, image)
    })

    for (const when of ['before', 'after'] as const) {
      it(`leaves nothing behind when a step fails ${when} it did its work`, async (t) => {
        for (const failing of STEPS) {
          const setup = await setUp(t)
          const image = await prepare(setup, name)
          let failed = false
          setup.wrapSteps((steps) =>
            steps.map((step, index) => ({
              ...step,
              run: async (signal) => {
                if (index !== failing || when === 'after') await step.run(signal)
                if (index !== failing) return
                failed = true
                throw NO_MORE
              },
            })),
          )
          await begin(setup, image, name)
          const task = await ended(setup, image)
          if (!failed) continue
          assert.deepEqual([task.status, task.message], ['failure', 'this step fails'])
          await assertUndone(setup, image)
        }
      })
    }

    it('does the same when every step runs twice', async (t) => {
      const setup = await setUp(t)
      const image = await prepare(setup, name)
      setup.wrapSteps((steps) =>
        steps.map((step) => ({
          ...step,
          run: async (signal) => {
            await step.run(signal)
            await step.run(signal)
          },
        })),
      )
      await begin(setup, image, name)
      assert.equal((await ended(setup, image)).status, 'success')
      await assertDone(setup, image)
    })

    it('is finished by another worker, wherever the first one stopped', async (t) => {
      for (const stopping of STEPS) {
        const setup = await setUp(t)
        const image = await prepare(setup, name)
        let stopped = false
        setup.wrapSteps((steps) =>
          steps.map((step, index) => ({
            ...step,
            run: async (signal) => {
              await step.run(signal)
              if (index !== stopping || stopped) return
              stopped = true
              await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
            },
          })),
        )
        await begin(setup, image, name)
        await until('the step', async () => stopped || (await imageOf(setup, image)).locations.length === 3)
        if (!stopped) continue
        // Its worker is another one than this process, which takes it over.
        const [job] = await setup.core.db.jobs.list(setup.core.worker.id)
        assert.ok(job)
        await setup.core.db.jobs.takeOver(job, 'dead' as WorkerId)
        await setup.core.db.workers.renew({ id: 'dead' as WorkerId, node: 'elsewhere', pid: 1, startedAt: 1 }, 0)
        await until('the loss to be noticed', () => !setup.runner.has(job.task))
        await sweep(setup.core, lapsed)
        assert.equal((await ended(setup, image)).status, 'success')
        await assertDone(setup, image)
        assert.deepEqual(await setup.core.db.workers.list(), await onlyOurs(setup))
      }
    })

    it('is undone when the image is deleted meanwhile', async (t) => {
      for (const deleting of STEPS) {
        const setup = await setUp(t)
        const image = await prepare(setup, name)
        let deleted = false
        setup.wrapSteps((steps) =>
          steps.map((step, index) => ({
            ...step,
            run: async (signal) => {
              await step.run(signal)
              if (index !== deleting) return
              await deleteImage(setup.core, context, image.id)
              deleted = true
            },
          })),
        )
        await begin(setup, image, name)
        const task = await ended(setup, image)
        if (!deleted) continue
        assert.equal(task.status, 'failure')
        for (const store of STORES) assert.equal(setup.kept[store]?.size, 0)
        await assertTidy(setup)
      }
    })

    it('is given up, and undone, when it was interrupted too often', async (t) => {
      const setup = await setUp(t)
      const image = await prepare(setup, name)
      setup.wrapSteps((steps) => [...steps, { name: 'never', run: () => new Promise(() => undefined) }])
      const { core } = setup
      const silent = { ...core.imports, runner: { ...core.imports.runner, start: () => undefined } }
      await begin({ ...setup, core: { ...core, imports: silent } }, image, name)
      let [job] = await core.db.jobs.list(core.worker.id)
      for (let tries = 1; tries <= 4; tries++) job = await takenOver(setup, job)
      await sweep(core, lapsed)
      const task = await ended(setup, image)
      assert.deepEqual([task.status, task.message], ['failure', 'The import was interrupted too often'])
      await assertUndone(setup, image)
    })
  })
}

const takenOver = async ({ core }: Setup, job: Job | undefined): Promise<Job> => {
  assert.ok(job)
  const taken = await core.db.jobs.takeOver(job, core.worker.id)
  assert.ok(taken)
  return taken
}
const onlyOurs = async ({ core }: Setup) =>
  (await core.db.workers.list()).filter(({ worker }) => worker.id === core.worker.id)

describe('imports', () => {
  it('goes on without stores that fail, where not all must succeed', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'glance-direct')
    setup.kept['slow']?.set(image.id, Buffer.from('in the way'))
    await begin(setup, image, 'glance-direct', { all_stores_must_succeed: false })
    assert.equal((await ended(setup, image)).status, 'success')
    setup.kept['slow']?.delete(image.id)
    await assertDone(setup, image, ['cheap', 'fast'])
    assert.equal((await imageOf(setup, image)).properties.get('os_glance_failed_import'), 'slow')
  })

  it('fails in all stores when one fails, and names it', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'glance-direct')
    const [other] = [await prepare(setup, 'copy-image')]
    setup.kept['slow']?.set(image.id, Buffer.from('in the way'))
    await begin(setup, image, 'glance-direct')
    const task = await ended(setup, image)
    assert.equal(task.status, 'failure')
    const { status, properties } = await imageOf(setup, image)
    assert.deepEqual([status, properties.get('os_glance_failed_import')], ['queued', 'slow'])
    for (const store of ['fast', 'cheap']) assert.equal(setup.kept[store]?.get(image.id), undefined)
    assert.deepEqual(setup.kept['fast']?.get(other.id), DATA)
  })

  it('does not exceed what the owner may store, every copy counted', async (t) => {
    const setup = await setUp(t, { storage: DATA.length * 2 })
    const image = await prepare(setup, 'glance-direct')
    await begin(setup, image, 'glance-direct')
    const task = await ended(setup, image)
    assert.equal(task.status, 'failure')
    assert.match(task.message, /^Image exceeds the storage quota: /)
    await assertUndone(setup, image)
  })

  it('does not tell the owner what only the operator is to know', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'fetch')
    const run = async () => {
      throw new Error('swift://user:password@host/container')
    }
    setup.wrapSteps((steps) => [{ name: 'secret', run }, ...steps])
    await begin(setup, image, 'fetch')
    assert.equal((await ended(setup, image)).message, 'Task failed due to Internal Error')
  })

  it('refuses a copy of damaged data', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'copy-image')
    setup.kept['fast']?.set(image.id, Buffer.from(DATA.toString().replace('image', 'imago')))
    await begin(setup, image, 'copy-image')
    const task = await ended(setup, image)
    assert.deepEqual([task.status, task.message], ['failure', 'The data in the store it is copied from is damaged'])
    await assertUndone(setup, image)
  })

  it('runs only one import of an image at a time', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'copy-image')
    let go: (() => void) | undefined
    const gate = new Promise<void>((resolve) => (go = resolve))
    setup.wrapSteps((steps) => [{ name: 'gate', run: () => gate }, ...steps])
    await begin(setup, image, 'copy-image')
    await assert.rejects(begin(setup, image, 'copy-image'), (error) => {
      return hasKind(error, 'conflict') && error.message === 'Image has active task'
    })
    go?.()
    assert.equal((await ended(setup, image)).status, 'success')
    await assertDone(setup, image)
  })

  it('goes on when the database was away at its end, whether that was saved or not', async (t) => {
    for (const saved of [false, true]) {
      const setup = await setUp(t)
      const image = await prepare(setup, 'glance-direct')
      const { jobs } = setup.core.db
      const { finish } = jobs
      const away = async (...args: Parameters<typeof finish>): ReturnType<typeof finish> => {
        Object.assign(jobs, { finish })
        if (saved) await finish(...args)
        throw new ServiceError('unavailable', 'the database is away')
      }
      Object.assign(jobs, { finish: away })
      await begin(setup, image, 'glance-direct')
      const [task] = await setup.core.db.tasks.ofImage(image.id, ADMIN)
      assert.ok(task)
      await until('the end of the run', () => !setup.runner.has(task.id))
      await sweep(setup.core, lapsed)
      assert.equal((await ended(setup, image)).status, 'success')
      if (saved) await setup.core.imports.staging.remove(image.id) // as the sweep does after an hour
      await assertDone(setup, image)
    }
  })

  it('leaves its jobs to others when the process ends', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'glance-direct')
    const run = (signal: AbortSignal) =>
      new Promise<void>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    setup.wrapSteps((steps) => [...steps, { name: 'long', run }])
    await begin(setup, image, 'glance-direct')
    await until('the data in the stores', () => setup.kept['slow']?.size === 1)
    await setup.runner.stop(10)
    const { core } = setup
    assert.equal((await core.db.jobs.list(core.worker.id)).length, 1)
    assert.equal((await imageOf(setup, image)).status, 'importing')
    assert.equal(await core.imports.staging.size(image.id), DATA.length)
  })

  it('are left to workers of the node whose worker died, as long as there are any', async (t) => {
    const setup = await setUp(t)
    const { core } = setup
    const image = await prepare(setup, 'glance-direct')
    const silent = { ...core.imports, runner: { ...core.imports.runner, start: () => undefined } }
    await begin({ ...setup, core: { ...core, imports: silent } }, image, 'glance-direct')
    const [job] = await core.db.jobs.list(core.worker.id)
    assert.ok(job)
    const worker = (id: string) => ({ id: id as WorkerId, node: 'elsewhere', pid: 1, startedAt: 1 })
    await core.db.jobs.takeOver(job, worker('dead').id)
    await core.db.workers.renew(worker('dead'), 0)
    await core.db.workers.renew(worker('alive'), 60_000)
    await sweep(core, lapsed)
    assert.equal((await core.db.jobs.list(worker('dead').id)).length, 1)
    await core.db.workers.renew(worker('alive'), 0)
    await sweep(core, lapsed)
    assert.equal((await ended(setup, image)).status, 'success')
    await assertDone(setup, image)
  })

  it('says how far it is, and is seen to live', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'fetch')
    let go: (() => void) | undefined
    const gate = new Promise<void>((resolve) => (go = resolve))
    setup.wrapSteps((steps) => [...steps, { name: 'gate', run: () => gate }])
    await begin(setup, image, 'fetch')
    const taskOf = async () => (await setup.core.db.tasks.ofImage(image.id, ADMIN))[0]
    await until('a first sign', async () => (await taskOf())?.status === 'processing')
    const first = (await taskOf())?.updatedAt ?? 0
    await until('another sign', async () => ((await taskOf())?.updatedAt ?? 0) > first)
    go?.()
    assert.equal((await ended(setup, image)).status, 'success')
  })
})

describe('staging', () => {
  it('is undone when its worker dies, and the image can be staged again', async (t) => {
    const setup = await setUp(t)
    const { core, dir } = setup
    const image = await prepare(setup, 'fetch')
    const worker = { id: 'dead' as WorkerId, node: 'elsewhere', pid: 1, startedAt: 1 }
    await core.db.workers.renew(worker, 0)
    await core.db.images.claim(
      { attempt: randomUUID() as never, imageId: image.id, worker: worker.id, store: core.imports.staging.id },
      {},
      'uploading',
    )
    await assert.rejects(begin(setup, image, 'glance-direct'), (error) => hasKind(error, 'conflict'))
    await core.imports.staging.write(image.id, bytes(), { signal: context.signal })
    await sweep(core, lapsed)
    assert.deepEqual(await readdir(dir), [])
    assert.equal((await imageOf(setup, image)).status, 'queued')
    await stageImage(core, context, image.id, { body: bytes, size: DATA.length })
    assert.deepEqual([(await imageOf(setup, image)).status, (await readdir(dir)).length], ['uploading', 1])
  })

  it('keeps nothing of data that is too large, too short, or whose client went away', async (t) => {
    const setup = await setUp(t, { imageSize: 1000 })
    const image = await prepare(setup, 'fetch')
    const abort = new AbortController()
    async function* endless() {
      yield DATA.subarray(0, 10)
      abort.abort(new ServiceError('invalid', 'The client went away'))
      await new Promise(() => undefined)
    }
    const tries = [
      () => stageImage(setup.core, context, image.id, { body: bytes }),
      () => stageImage(setup.core, context, image.id, { body: () => short(), size: 20 }),
      () => stageImage(setup.core, { ...context, signal: abort.signal }, image.id, { body: endless }),
    ]
    async function* short() {
      yield DATA.subarray(0, 10)
    }
    for (const attempt of tries) {
      await assert.rejects(attempt())
      const { status, size } = await imageOf(setup, image)
      assert.deepEqual([status, size], ['queued', null])
      assert.deepEqual(await readdir(setup.dir), [])
    }
  })

  it('is not confused by what a node that was given up left there', async (t) => {
    const setup = await setUp(t)
    const { core, dir } = setup
    const image = await prepare(setup, 'fetch')
    await core.imports.staging.write(image.id, bytes(), { signal: context.signal })
    await stageImage(core, context, image.id, { body: bytes })
    assert.deepEqual(await readdir(dir), [image.id as ImageId])
  })

  it("is swept of what no image waits for, and of nothing that may be somebody else's", async (t) => {
    const setup = await setUp(t)
    const [waiting, active, queued] = [
      await prepare(setup, 'glance-direct'),
      await prepare(setup, 'copy-image'),
      await prepare(setup, 'fetch'),
    ]
    const old = await prepare(setup, 'fetch')
    // Upstream stages the data of an active image to copy it; its lock is a property.
    const copied = await prepare(setup, 'copy-image')
    const lock = new Map([['os_glance_import_task', randomUUID()]])
    await setup.core.db.images.update(copied.id, { setProperties: lock }, ['active'])
    const [strange, forgotten] = [randomUUID(), randomUUID()]
    const hours = new Date(Date.now() - 7_200_000)
    for (const name of [
      `${active.id}.raw`,
      copied.id,
      queued.id,
      old.id,
      strange,
      forgotten,
      `.${old.id}.x.part`,
      'lost+found',
    ])
      await writeFile(join(setup.dir, name), '')
    for (const name of [old.id, copied.id, forgotten, `.${old.id}.x.part`, waiting.id, 'lost+found'])
      await utimes(join(setup.dir, name), hours, hours)
    await sweepStaging(setup.core)
    const kept = [waiting.id, copied.id, queued.id, strange, 'lost+found']
    assert.deepEqual((await readdir(setup.dir)).toSorted(), kept.toSorted())
  })

  it('is emptied when its image is deleted', async (t) => {
    const setup = await setUp(t)
    const image = await prepare(setup, 'glance-direct')
    await deleteImage(setup.core, context, image.id)
    await assertTidy(setup)
  })
})
