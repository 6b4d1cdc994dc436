import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it } from 'node:test'
import { hasKind } from '../domain/errors.ts'
import type { AttemptId, LocationUri, ProjectId, StoreId, TaskId, UserId, WorkerId } from '../domain/ids.ts'
import type { Image } from '../domain/image.ts'
import { type DatabaseHarness, newImage } from './conformance.ts'
import type { Claim, Database, JobChange, NewTask, PurgedTable, PurgeScope, RowKey } from './database.ts'
import { PURGED_TABLES } from './database.ts'
import { toText } from './time.ts'

const EVERYTHING: readonly PurgedTable[] = [...PURGED_TABLES, 'images']
const WORKER = 'worker-1' as WorkerId
/** Whatever is deleted now was deleted before that. */
const tomorrow = () => new Date(Date.now() + 86_400_000)
const scope = (table: PurgedTable): PurgeScope => ({
  table,
  deleted: { before: toText(tomorrow()) },
})

const newTask = (): NewTask => ({
  id: randomUUID() as TaskId,
  type: 'api_image_import',
  owner: 'owner' as ProjectId,
  input: {},
  imageId: null,
  requestId: null,
  userId: 'user' as UserId,
})

/** An image with two properties, a tag, a location and a member. */
const fullImage = async (db: Database): Promise<Image> => {
  const { id } = await db.images.insert(
    newImage({
      tags: ['t'],
      properties: new Map([
        ['p', '1'],
        ['q', '2'],
      ]),
    }),
  )
  await db.members.add(id, 'm' as ProjectId, -1)
  const location = { uri: `file:///${id}` as LocationUri, store: undefined, metadata: {} }
  return db.images.update(id, { status: 'active', addLocations: [location] }, ['queued'])
}

/** As one whose data is gone. */
const remove = async (db: Database, { id, locations }: Image): Promise<void> => {
  await db.images.remove(id, ['active'])
  for (const { uri } of locations) await db.images.dropLocation(id, uri)
}

const purge = async (db: Database, table: PurgedTable): Promise<number> =>
  db.maintenance.purge(scope(table), (await db.maintenance.purgeable(scope(table), 1000)).keys)

const purgeAll = async (db: Database): Promise<Readonly<Record<string, number>>> => {
  const gone: Record<string, number> = {}
  for (const table of EVERYTHING) gone[table] = await purge(db, table)
  return gone
}

const surveyAll = async (db: Database, what: 'rows' | 'kept'): Promise<Readonly<Record<string, number>>> => {
  const found: Record<string, number> = {}
  for (const table of EVERYTHING) found[table] = (await db.maintenance.survey(scope(table)))[what]
  return found
}

const NOTHING = Object.fromEntries(EVERYTHING.map((table) => [table, 0]))
const OF_ONE_IMAGE = { ...NOTHING, image_properties: 2, image_tags: 1, image_locations: 1, image_members: 1, images: 1 }

/** What every database must do when it is purged. */
export function maintenanceConformance(harness: DatabaseHarness): void {
  const check = (title: string, body: (db: Database) => Promise<void>) =>
    it(title, { skip: harness.skip?.[title] ?? false }, async (t) => body(await harness.open(t)))

  describe(`${harness.name}: purge`, () => {
    check('takes out what was deleted, and tells before how much that is', async (db) => {
      const [one, living] = [await fullImage(db), await fullImage(db)]
      await remove(db, one)
      assert.deepEqual(await surveyAll(db, 'rows'), OF_ONE_IMAGE)
      assert.deepEqual(await purgeAll(db), OF_ONE_IMAGE)
      assert.deepEqual(await purgeAll(db), NOTHING)
      assert.deepEqual(await db.images.get(living.id, { admin: true, project: undefined }), living)
      assert.equal((await db.members.list(living.id)).length, 1)
      await db.images.insert(newImage({ id: one.id }))
    })

    check('takes out what living images have lost, and nothing that they have again', async (db) => {
      const { id } = await fullImage(db)
      await db.images.update(id, { unsetProperties: ['p', 'q'] }, ['active'])
      await db.images.removeTag(id, 't')
      await db.members.remove(id, 'm' as ProjectId)
      const kept = await db.images.update(id, { setProperties: new Map([['q', '3']]) }, ['active'])
      await db.members.add(id, 'm' as ProjectId, -1)
      assert.deepEqual(await purgeAll(db), { ...NOTHING, image_properties: 1, image_tags: 1 })
      const [member] = await db.members.list(id)
      assert.equal(member?.member, 'm')
      const image = await db.images.get(id, { admin: true, project: undefined })
      assert.deepEqual([image.properties, image.tags], [kept.properties, []])
    })

    check('leaves a row alone that came back after it was looked up', async (db) => {
      const { id } = await fullImage(db)
      await db.images.update(id, { unsetProperties: ['p'] }, ['active'])
      const table = scope('image_properties')
      const { keys } = await db.maintenance.purgeable(table, 10)
      assert.equal(keys.length, 1)
      const { properties } = await db.images.update(id, { setProperties: new Map([['p', '4']]) }, ['active'])
      assert.equal(await db.maintenance.purge(table, keys), 0)
      assert.deepEqual((await db.images.get(id, { admin: true, project: undefined })).properties, properties)
    })

    check('keeps locations whose data may still exist, and their images', async (db) => {
      const image = await fullImage(db)
      await db.images.remove(image.id, ['active'])
      assert.deepEqual(await surveyAll(db, 'kept'), { ...NOTHING, image_locations: 1, images: 1 })
      assert.deepEqual(await purgeAll(db), { ...OF_ONE_IMAGE, image_locations: 0, images: 0 })
      assert.equal((await db.images.undropped(10)).length, 1)
      for (const { uri } of image.locations) await db.images.dropLocation(image.id, uri)
      assert.deepEqual(await purgeAll(db), { ...NOTHING, image_locations: 1, images: 1 })
    })

    check('keeps images that somebody has a claim or a job on, and the tasks of jobs', async (db) => {
      const claimed = await db.images.insert(newImage())
      const claim: Claim = {
        attempt: randomUUID() as AttemptId,
        imageId: claimed.id,
        worker: WORKER,
        store: 'fast' as StoreId,
      }
      await db.images.claim(claim)
      await db.images.remove(claimed.id, ['saving'])
      const begin = (change: JobChange) =>
        db.jobs.begin({
          task: newTask(),
          image: newImage(),
          worker: WORKER,
          context: null,
          change,
          preempted: { status: 'failure' },
        })
      const { job, image } = await begin({})
      await db.images.remove(image.id, ['queued'])
      await begin({ task: { keepMs: -1000 } })
      await db.tasks.forgetExpired()
      assert.deepEqual(await surveyAll(db, 'kept'), { ...NOTHING, images: 2, tasks: 1, task_info: 1 })
      // The property by which the task held the image.
      assert.deepEqual(await purgeAll(db), { ...NOTHING, image_properties: 1 })
      await assert.rejects(db.images.settle(claim, { status: 'queued' }), (error) => hasKind(error, 'not-found'))
      await db.jobs.finish(job, {})
      assert.deepEqual(await purgeAll(db), { ...NOTHING, images: 2 })
    })

    check('takes tasks that have expired, with what they say, and no others', async (db) => {
      await db.tasks.insert(newTask(), { keepMs: -1000 })
      const { id } = await db.tasks.insert(newTask())
      await db.tasks.forgetExpired()
      assert.deepEqual(await surveyAll(db, 'rows'), { ...NOTHING, tasks: 1, task_info: 1 })
      // Its info refers to it.
      assert.equal(await purge(db, 'tasks'), 0)
      assert.deepEqual(await purgeAll(db), { ...NOTHING, tasks: 1, task_info: 1 })
      assert.equal((await db.tasks.get(id, { admin: true, project: undefined })).id, id)
    })

    check('keeps an image while other rows refer to it, and says so', async (db) => {
      const image = await fullImage(db)
      await remove(db, image)
      assert.deepEqual(await db.maintenance.survey(scope('images')), {
        rows: 1,
        kept: 0,
        last: undefined,
        blocked: true,
      })
      assert.equal((await db.maintenance.survey(scope('images'), 0)).blocked, false)
      assert.equal(await purge(db, 'images'), 0)
      await purgeAll(db)
      assert.equal((await db.maintenance.survey(scope('images'))).blocked, false)
    })

    check('survey() tells when the last of the oldest rows was deleted', async (db) => {
      for (let n = 0; n < 3; n++) await remove(db, await fullImage(db))
      const tags = scope('image_tags')
      const all = await db.maintenance.survey(tags)
      assert.deepEqual(all, { rows: 3, kept: 0, last: undefined, blocked: false })
      assert.deepEqual(await db.maintenance.survey(tags, 3), all)
      assert.deepEqual(await db.maintenance.survey(tags, 0), { ...all, rows: 0 })
      const { rows, last } = await db.maintenance.survey(tags, 2)
      assert.equal(rows, 2)
      assert.ok(last !== undefined)
      const { keys: before } = await db.maintenance.purgeable({ ...tags, deleted: { before: last } }, 10)
      const { keys: at } = await db.maintenance.purgeable({ ...tags, deleted: { at: last } }, 10)
      assert.ok(before.length < 2 && before.length + at.length >= 2)
    })

    check('purgeable() looks at page after page, in the order of the keys', async (db) => {
      for (let n = 0; n < 5; n++) {
        await fullImage(db)
        await remove(db, await fullImage(db))
      }
      for (const table of ['image_properties', 'images'] as const) {
        const whole = await db.maintenance.purgeable(scope(table), 100)
        assert.deepEqual([new Set(whole.keys).size, whole.next], [table === 'images' ? 5 : 10, undefined])
        const pages: RowKey[] = []
        let page = await db.maintenance.purgeable(scope(table), 3)
        for (; page.next !== undefined; page = await db.maintenance.purgeable(scope(table), 3, page.next)) {
          assert.ok(page.keys.length <= 3)
          pages.push(...page.keys)
        }
        assert.deepEqual([...pages, ...page.keys], whole.keys)
      }
    })

    const ADMIN = { admin: true, project: undefined } as const

    check('what is deleted with delay waits, and comes back as it was', async (db) => {
      const image = await fullImage(db)
      await db.images.update(image.id, { unsetProperties: ['p'] }, ['active'])
      const { id } = await db.images.update(image.id, { setProperties: new Map([['p', '3']]) }, ['active'])
      const before = await db.images.get(id, ADMIN)
      assert.deepEqual(await db.images.remove(id, ['active'], true), before)
      await assert.rejects(db.images.get(id, ADMIN), (error) => hasKind(error, 'not-found'))
      assert.deepEqual(await db.images.undropped(10), [])
      assert.deepEqual(await purgeAll(db), NOTHING)
      assert.deepEqual(await db.delayed.over(new Date('2020-01-01'), 10), [])
      assert.deepEqual(await db.delayed.over(tomorrow(), 10), [id])
      const { updatedAt, ...restored } = await db.delayed.restore(id)
      assert.ok(updatedAt >= before.updatedAt)
      assert.deepEqual({ ...restored, updatedAt: before.updatedAt }, before)
      assert.equal((await db.members.list(id))[0]?.member, 'm')
      assert.deepEqual(await db.delayed.over(tomorrow(), 10), [])
      assert.deepEqual(await db.delayed.end(id), [])
    })

    check('a delay ends once, and then for good', async (db) => {
      const image = await fullImage(db)
      await db.images.remove(image.id, ['active'], true)
      assert.deepEqual(await db.delayed.end(image.id), image.locations)
      assert.deepEqual(await db.delayed.end(image.id), [])
      assert.equal((await db.images.undropped(10)).length, 1)
      await assert.rejects(db.delayed.restore(image.id), (error) => hasKind(error, 'conflict'))
      await assert.rejects(db.delayed.restore(newImage().id), (error) => hasKind(error, 'not-found'))
    })

    check('an image without data has nothing to wait for', async (db) => {
      const { id } = await db.images.insert(newImage())
      await db.images.remove(id, ['queued'], true)
      assert.deepEqual(await db.delayed.over(tomorrow(), 10), [])
      assert.equal(await purge(db, 'images'), 1)
    })

    const openTwice = harness.openTwice
    it('two at once take out each row once', { skip: openTwice ? false : 'one connection only' }, async (t) => {
      if (!openTwice) return
      const [one, other] = await openTwice(t)
      for (let n = 0; n < 10; n++) await remove(one, await fullImage(one))
      const gone: Record<string, number> = {}
      for (const table of EVERYTHING) {
        const counts = await Promise.all([one, other].map((db) => purge(db, table)))
        gone[table] = counts.reduce((sum, count) => sum + count)
      }
      const ten = Object.fromEntries(Object.entries(OF_ONE_IMAGE).map(([table, rows]) => [table, rows * 10]))
      assert.deepEqual(gone, ten)
    })
  })
}
