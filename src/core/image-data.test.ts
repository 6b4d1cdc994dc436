import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { noImports } from '../../test/support/imports.ts'
import { lapsed } from '../../test/support/lapsed.ts'
import { type Identity, NOBODY } from '../auth/identity.ts'
import type { Database } from '../db/database.ts'
import { openDatabase } from '../db/sql/connect.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { ImageId, ProjectId, UserId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import type { ByteSource } from '../io/bytes.ts'
import { noKeys } from '../keys/key-manager.ts'
import { silentLog } from '../log.ts'
import type { Notification } from '../notify/notifier.ts'
import { openPolicy } from '../policy/enforcer.ts'
import { UNPROTECTED } from '../policy/property-protection.ts'
import type { StoreDriver } from '../store/driver.ts'
import { openMemoryDriver } from '../store/drivers/memory.ts'
import { openStores } from '../store/stores.ts'
import type { Core, RequestContext } from './core.ts'
import { downloadImage, uploadImage } from './image-data.ts'
import { createImage, deleteImage } from './images.ts'
import { sweep, thisWorker } from './recovery.ts'

const DATA = Buffer.from('some image data that is no known format'.repeat(100))
const ADMIN_SCOPE = { admin: true, project: undefined } as const

async function* bytes(data: Buffer = DATA): ByteSource {
  for (let at = 0; at < data.length; at += 1000) yield data.subarray(at, at + 1000)
}

const identity: Identity = {
  ...NOBODY,
  userId: 'alice' as UserId,
  projectId: 'p1' as ProjectId,
  roles: ['member', 'reader'],
}
const context = (signal: AbortSignal = new AbortController().signal): RequestContext => ({
  requestId: 'req-test',
  identity,
  isAdmin: false,
  scope: { admin: false, project: identity.projectId },
  signal,
})

interface Setup {
  readonly core: Core
  readonly driver: StoreDriver
  readonly events: readonly Notification[]
}

async function setUp(t: TestContext, wrap: (core: Core) => Core = (core) => core): Promise<Setup> {
  const db = await openDatabase('sqlite://')
  const driver = openMemoryDriver()
  const events: Notification[] = []
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
    },
    dataRules: { hashAlgorithm: 'sha512', requireFormatMatch: true, vmdkAllowedTypes: [], gptNonfatal: [] },
    db,
    stores: openStores({ multi: false, defaultStore: 'memory', stores: [{ id: 'memory', driver }] }),
    policy: openPolicy({
      policyFile: '/nonexistent',
      policyDirs: [],
      defaultRule: 'default',
      enforceNewDefaults: true,
      warn: () => undefined,
    }),
    protection: UNPROTECTED,
    notifier: { notify: (event) => void events.push(event), close: async () => undefined },
    keys: noKeys,
    worker: thisWorker(),
    delayedDelete: false,
    taskKeepMs: 1000,
    imports: noImports(db),
    locationRules: { secureHash: true, retries: 0 },
    uriFilter: { admits: async () => true },
    attempts: new Set(),
    log: silentLog,
  }
  await db.workers.renew(core.worker, 60_000)
  t.after(async () => {
    await core.stores.close()
    await db.close()
  })
  return { core: wrap(core), driver, events }
}

const newImage = (core: Core, properties: Partial<{ diskFormat: string; containerFormat: string }> = {}) =>
  createImage(core, context(), {
    diskFormat: 'raw',
    containerFormat: 'bare',
    ...properties,
    tags: [],
    properties: new Map(),
  })

const download = async (core: Core, image: Image): Promise<Buffer | undefined> => {
  const { data } = await downloadImage(core, context(), image.id, () => undefined)
  if (data === undefined) return undefined
  const chunks: Buffer[] = []
  for await (const chunk of data.source) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

describe('upload', () => {
  it('makes the image active with size and digests', async (t) => {
    const { core, events } = await setUp(t)
    const image = await newImage(core)
    const active = await uploadImage(core, context(), image.id, { body: bytes, size: DATA.length })
    assert.equal(active.status, 'active')
    assert.equal(active.size, DATA.length)
    assert.equal(active.checksum, createHash('md5').update(DATA).digest('hex'))
    assert.equal(active.osHashValue, createHash('sha512').update(DATA).digest('hex'))
    assert.equal(active.virtualSize, DATA.length)
    assert.deepEqual(await download(core, active), DATA)
    assert.deepEqual(
      events.map(({ type }) => type),
      ['image.create', 'image.update', 'image.prepare', 'image.upload', 'image.activate', 'image.update', 'image.send'],
    )
  })

  it('tells others why there is no data, without what only the log should say', async (t) => {
    const { core, events } = await setUp(t)
    const image = await newImage(core)
    const failing = async function* () {
      yield DATA
      throw new Error('hunter2')
    }
    await assert.rejects(uploadImage(core, context(), image.id, { body: failing }))
    assert.deepEqual(
      events.slice(-2).map((event) => ('failure' in event ? event.failure : event.type)),
      [`Failed to upload image data for image ${image.id}: internal error`, 'image.update'],
    )
  })

  it('does not ask for the body before everything else is accepted', async (t) => {
    const { core } = await setUp(t)
    const body = () => assert.fail('the body was asked for')
    const image = await newImage(core)
    const stranger: RequestContext = { ...context(), identity: { ...identity, roles: ['reader'] } }
    await assert.rejects(uploadImage(core, stranger, image.id, { body }), (error) => hasKind(error, 'forbidden'))
    await assert.rejects(uploadImage(core, context(), image.id, { body, size: 2 << 20 }), (error) =>
      hasKind(error, 'too-large'),
    )
    const bare = await createImage(core, context(), { tags: [], properties: new Map() })
    await assert.rejects(uploadImage(core, context(), bare.id, { body }), (error) => hasKind(error, 'invalid'))
    await assert.rejects(uploadImage(core, context(), randomUUID() as ImageId, { body }), (error) =>
      hasKind(error, 'not-found'),
    )
  })

  it('takes the data of one owner up to its quota, whether their size is known before or not', async (t) => {
    const quota = DATA.length + 10
    const { core, driver } = await setUp(t, (core) => ({ ...core, limits: { ...core.limits, storage: quota } }))
    const [first, second] = [await newImage(core), await newImage(core)]
    await uploadImage(core, context(), first.id, { body: bytes })
    const big = () => bytes(DATA.subarray(0, 11))
    const body = () => assert.fail('the body was asked for')
    for (const upload of [
      { body, size: 11 },
      { body: big, size: undefined },
    ]) {
      const { size } = upload
      await assert.rejects(
        uploadImage(core, context(), second.id, { body: upload.body, ...(size === undefined ? {} : { size }) }),
        (error) =>
          hasKind(error, 'too-large') && error.message.endsWith('data 11 will exceed the limit. 10 bytes remaining.'),
      )
      await assertUntouched(core, second.id)
      await assertNoData(driver, second.id)
    }
    await uploadImage(core, context(), second.id, { body: () => bytes(DATA.subarray(0, 10)) })
    const third = await newImage(core)
    await assert.rejects(uploadImage(core, context(), third.id, { body }), (error) => hasKind(error, 'too-large'))
  })

  it('keeps nothing of uploads that exceed the quota of their owner only together', async (t) => {
    const { core, driver } = await setUp(t, (core) => ({ ...core, limits: { ...core.limits, storage: DATA.length } }))
    const images = await Promise.all([1, 2, 3].map(() => newImage(core)))
    const outcomes = await Promise.allSettled(images.map(({ id }) => uploadImage(core, context(), id, { body: bytes })))
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    for (const [index, { id }] of images.entries()) {
      const outcome = outcomes[index]
      if (outcome?.status !== 'rejected') continue
      assert.ok(hasKind(outcome.reason, 'too-large'))
      await assertUntouched(core, id)
      await assertNoData(driver, id)
    }
  })

  it('refuses a second upload', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core)
    await uploadImage(core, context(), image.id, { body: bytes })
    await assert.rejects(uploadImage(core, context(), image.id, { body: bytes }), (error) => hasKind(error, 'conflict'))
  })

  it('lets one of two uploads at once win', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core)
    const outcomes = await Promise.allSettled([1, 2].map(() => uploadImage(core, context(), image.id, { body: bytes })))
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    assert.equal((await core.db.images.get(image.id, ADMIN_SCOPE)).status, 'active')
  })

  for (const [title, upload, kind] of [
    ['fewer bytes than declared', { body: bytes, size: DATA.length + 1 }, 'invalid'],
    ['more bytes than declared', { body: bytes, size: DATA.length - 1 }, 'invalid'],
    ['more bytes than any image may have', { body: () => bytes(Buffer.alloc((1 << 20) + 1)) }, 'too-large'],
  ] as const) {
    it(`leaves nothing behind after ${title}`, async (t) => {
      const { core } = await setUp(t)
      const image = await newImage(core)
      await assert.rejects(uploadImage(core, context(), image.id, upload), (error) => hasKind(error, kind))
      await assertUntouched(core, image.id)
      assert.equal((await uploadImage(core, context(), image.id, { body: bytes })).status, 'active')
    })
  }

  it('keeps nothing of data that is not of the stated format', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core, { diskFormat: 'qcow2' })
    await assert.rejects(uploadImage(core, context(), image.id, { body: bytes }), (error) =>
      hasKind(error, 'unsupported-media-type'),
    )
    await assertUntouched(core, image.id)
  })

  it('keeps nothing when the client vanishes', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core)
    const client = new AbortController()
    async function* vanishing(): ByteSource {
      yield DATA.subarray(0, 100)
      client.abort(new ServiceError('invalid', 'The client went away'))
      await new Promise(() => undefined)
    }
    await assert.rejects(uploadImage(core, context(client.signal), image.id, { body: vanishing }))
    await assertUntouched(core, image.id)
  })

  it('tells of an image that was deleted meanwhile, and keeps no data', async (t) => {
    const { core, driver } = await setUp(t)
    const image = await newImage(core)
    async function* deleting(): ByteSource {
      yield DATA
      await deleteImage(core, context(), image.id)
    }
    await assert.rejects(uploadImage(core, context(), image.id, { body: deleting }), (error) => hasKind(error, 'gone'))
    await assertNoData(driver, image.id)
    assert.deepEqual(await core.db.workers.claims(core.worker.id), [])
  })

  it('keeps its data when a commit of which nobody could tell the outcome arrives late', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core)
    let commit = async (): Promise<unknown> => undefined
    const unsure = {
      ...core,
      db: {
        ...core.db,
        images: {
          ...core.db.images,
          settle: (...given: Parameters<Core['db']['images']['settle']>) => {
            commit = () => core.db.images.settle(...given)
            return Promise.reject(new ServiceError('unavailable', 'no answer', { detail: { outcome: 'unknown' } }))
          },
        },
      },
    }
    await assert.rejects(uploadImage(unsure, context(), image.id, { body: bytes }), (error) =>
      hasKind(error, 'unavailable'),
    )
    await commit()
    await sweep(core, lapsed)
    const active = await core.db.images.get(image.id, ADMIN_SCOPE)
    assert.equal(active.status, 'active')
    assert.deepEqual(await download(core, active), DATA)
  })

  it('does not publish data after its claim was taken over', async (t) => {
    const { core } = await setUp(t)
    const image = await newImage(core)
    const other = {
      ...core,
      worker: { ...core.worker, id: randomUUID() as typeof core.worker.id },
      attempts: new Set<never>(),
    }
    await core.db.workers.renew(other.worker, 60_000)
    async function* sleepy(): ByteSource {
      yield DATA
      const [claim] = await core.db.workers.claims(core.worker.id)
      assert.ok(claim && (await core.db.workers.takeOver(claim, other.worker.id)))
      await sweep(other, lapsed)
      await uploadImage(other, context(), image.id, { body: bytes })
    }
    await assert.rejects(uploadImage(core, context(), image.id, { body: sleepy }))
    const active = await core.db.images.get(image.id, ADMIN_SCOPE)
    assert.equal(active.status, 'active')
    assert.deepEqual(await download(core, active), DATA)
  })
})

async function assertUntouched(core: Core, id: ImageId): Promise<void> {
  const image = await core.db.images.get(id, ADMIN_SCOPE)
  assert.equal(image.status, 'queued')
  assert.equal(image.size, null)
  assert.deepEqual(image.locations, [])
  assert.deepEqual(await core.db.workers.claims(core.worker.id), [])
  assert.equal(core.attempts.size, 0)
}

const signal = new AbortController().signal
const assertNoData = (driver: StoreDriver, id: ImageId) =>
  assert.rejects(driver.stat(`memory://${id}` as never, { signal }), (error) => hasKind(error, 'not-found'))

/** Makes the `position`th call of a collaborator fail, before or after it did its work. */
function failAt(position: number, when: 'before' | 'after'): { wrap: (core: Core) => Core; calls: () => number } {
  let calls = 0
  const guard = <T extends object>(target: T, names: readonly string[]): T =>
    new Proxy(target, {
      get: (object, name, receiver) => {
        const value: unknown = Reflect.get(object, name, receiver)
        if (typeof value !== 'function' || !names.includes(String(name))) return value
        return async (...args: unknown[]) => {
          const mine = ++calls === position
          if (mine && when === 'before') throw new ServiceError('unavailable', 'injected')
          const result: unknown = await (value as (...given: unknown[]) => unknown).apply(object, args)
          if (mine) throw new ServiceError('unavailable', 'injected')
          return result
        }
      },
    })
  return {
    calls: () => calls,
    wrap: (core) => {
      const db: Database = {
        ...core.db,
        images: guard(core.db.images, ['get', 'claim', 'settle', 'update', 'remove', 'dropLocation']),
      }
      // A put that fails after its work would break its contract: all or nothing.
      const names = ['discard', 'delete', 'open', ...(when === 'before' ? ['put'] : [])]
      const store = guard(core.stores.default, names)
      return { ...core, db, stores: { ...core.stores, select: () => store, holding: () => store } }
    },
  }
}

/** No active image without data, no data without an image that knows it, no lock without an owner. */
async function assertInvariants(core: Core, driver: StoreDriver, id: ImageId): Promise<void> {
  assert.deepEqual(await core.db.workers.claims(core.worker.id), [], 'no claim is left')
  const image = await core.db.images.get(id, ADMIN_SCOPE).catch(() => undefined)
  if (image?.status === 'active') {
    assert.deepEqual(await download(core, image), DATA)
    return
  }
  assert.ok(image === undefined || image.status === 'queued', `status ${image?.status}`)
  await assertNoData(driver, id)
}

for (const when of ['before', 'after'] as const) {
  describe(`any one call that fails ${when} its work`, () => {
    it('breaks no invariant of upload, download and delete', async (t) => {
      let total = Number.POSITIVE_INFINITY
      for (let position = 1; position <= total; position++) {
        const faults = failAt(position, when)
        const { core, driver } = await setUp(t)
        const faulty = faults.wrap(core)
        const image = await newImage(core)
        const attempts = [
          () => uploadImage(faulty, context(), image.id, { body: bytes }),
          () => download(faulty, image),
          () => deleteImage(faulty, context(), image.id),
        ]
        for (const attempt of attempts)
          await attempt().catch((error: unknown) => assert.ok(error instanceof ServiceError))
        total = Math.max(faults.calls(), position)
        if (position > faults.calls()) break
        await sweep(core, lapsed)
        await assertInvariants(core, driver, image.id)
      }
      assert.ok(total >= 6, `only ${total} calls were tried`)
    })
  })
}
