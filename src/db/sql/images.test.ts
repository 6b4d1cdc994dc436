import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { makeUpstream } from '../../../test/support/upstream-database.ts'
import type { ImageId, LocationUri, ProjectId } from '../../domain/ids.ts'
import { databaseConformance, imageQuery, newImage } from '../conformance.ts'
import type { Scope } from '../database.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'

const ADMIN: Scope = { admin: true, project: undefined }
const MEMBER: Scope = { admin: false, project: 'm' as ProjectId }

const opened = async (t: TestContext, url: string, key?: string) => {
  const db = await openDatabase({ connection: url, metadata_encryption_key: key })
  t.after(() => db.close())
  return db
}

databaseConformance({ name: 'SQLite memory', open: (t) => opened(t, 'sqlite://') })
databaseConformance({
  name: 'SQLite without our indexes and triggers',
  open: async (t) => opened(t, await makeUpstream(`sqlite:///${await newFile(t)}`)),
})
databaseConformance({
  name: 'SQLite memory, encrypted locations',
  open: (t) => opened(t, 'sqlite://', '0123456789abcdef'),
})
databaseConformance({
  name: 'SQLite file',
  open: async (t) => opened(t, `sqlite:///${await newFile(t)}`),
  openTwice: async (t) => {
    const url = `sqlite:///${await newFile(t)}`
    return [await opened(t, url), await opened(t, url)]
  },
})

describe('rows as upstream writes and reads them', () => {
  const open = async (t: TestContext) => {
    const file = await newFile(t)
    return { db: await opened(t, `sqlite:///${file}`), raw: openRaw(t, file) }
  }
  type Row = Record<string, unknown>

  it('times are text in UTC with microseconds, flags 0 and 1, and nothing deleted has a time of deletion', async (t) => {
    const { db, raw } = await open(t)
    const { id, createdAt } = await db.images.insert(
      newImage({ protected: true, tags: ['t'], properties: new Map([['p', 'v']]) }),
    )
    const row = raw.prepare('select * from images').get() as Row
    const time = `${createdAt.toISOString().replace('T', ' ').slice(0, 23)}000`
    assert.equal(row['created_at'], time)
    assert.equal(row['updated_at'], time)
    assert.deepEqual([row['deleted'], row['deleted_at'], row['protected'], row['os_hidden']], [0, null, 1, 0])
    for (const table of ['image_properties', 'image_tags']) {
      const child = raw.prepare(`select image_id, created_at, deleted, deleted_at from ${table}`).get() as Row
      assert.deepEqual([child['image_id'], child['deleted'], child['deleted_at']], [id, 0, null])
      assert.match(`${child['created_at']}`, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}000$/)
    }
  })

  it('the store is kept in the metadata of a location', async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage())
    const location = { uri: 'file:///a' as LocationUri, store: 'fast' as never, metadata: { a: 1 } }
    await db.images.update(id, { addLocations: [location] }, ['queued'])
    const row = raw.prepare('select value, meta_data, status from image_locations').get() as Row
    assert.equal(row['value'], 'file:///a')
    assert.deepEqual(JSON.parse(row['meta_data'] as string), { a: 1, store: 'fast' })
    assert.equal(row['status'], 'active')
  })

  it('locations of old releases and of other hands are read as far as they go', async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage())
    const insert = raw.prepare(`insert into image_locations (image_id, value, meta_data, status, created_at, deleted)
      values (?, ?, ?, ?, '2015-01-01 00:00:00.000000', ?)`)
    insert.run(id, 'a', null, 'active', 0)
    insert.run(id, 'b', '{"backend": "old"}', 'active', 0)
    insert.run(id, 'c', 'no json', 'active', 0)
    insert.run(id, 'd', '[1]', 'active', 0)
    insert.run(id, 'e', '{}', 'pending', 0)
    insert.run(id, 'f', '{}', 'deleted', 1)
    const { locations } = await db.images.get(id, ADMIN)
    assert.deepEqual(
      locations.map(({ uri, store }) => [uri, store]),
      [
        ['a', undefined],
        ['b', 'old'],
        ['c', undefined],
        ['d', undefined],
      ],
    )
  })

  it('a removed image keeps its rows, all of them marked', async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage({ tags: ['t'], properties: new Map([['p', 'v']]) }))
    await db.members.add(id, 'm' as ProjectId, -1)
    await db.images.update(id, { addLocations: [{ uri: 'x://1' as LocationUri, store: undefined, metadata: {} }] }, [
      'queued',
    ])
    await db.images.remove(id, ['queued'])
    const { status, deleted, deleted_at } = raw.prepare('select * from images').get() as Row
    assert.deepEqual([status, deleted], ['deleted', 1])
    const time = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$/
    assert.match(`${deleted_at}`, time)
    for (const table of ['image_properties', 'image_tags', 'image_members', 'image_locations']) {
      const rows = raw.prepare(`select deleted, deleted_at from ${table}`).all() as Row[]
      assert.deepEqual(
        rows.map((row) => [row['deleted'], time.test(`${row['deleted_at']}`)]),
        [[1, true]],
        table,
      )
    }
    const state = () => (raw.prepare('select status from image_locations').get() as Row)['status']
    assert.equal(state(), 'pending_delete')
    await db.images.dropLocation(id, 'x://1' as LocationUri)
    assert.equal(state(), 'deleted')
  })

  it('a property is updated in place and revived, a tag gets a new row, a member its old one', async (t) => {
    const { db, raw } = await open(t)
    const rows = (table: string) => (raw.prepare(`select count(*) as n from ${table}`).get() as Row)['n']
    const { id } = await db.images.insert(newImage({ tags: ['t'], properties: new Map([['p', '1']]) }))
    await db.images.update(id, { setProperties: new Map([['p', '2']]) }, ['queued'])
    await db.images.update(id, { unsetProperties: ['p'] }, ['queued'])
    assert.equal((raw.prepare('select deleted from image_properties').get() as Row)['deleted'], 1)
    await db.images.update(id, { setProperties: new Map([['p', '3']]) }, ['queued'])
    await db.images.removeTag(id, 't')
    await db.images.addTag(id, 't', -1)
    await db.members.add(id, 'm' as ProjectId, -1)
    await db.members.remove(id, 'm' as ProjectId)
    await db.members.add(id, 'm' as ProjectId, -1)
    assert.deepEqual([rows('image_properties'), rows('image_tags'), rows('image_members')], [1, 2, 1])
  })

  it('sizes beyond 2^53 are rounded, not refused', async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage())
    raw.prepare('update images set size = ?, virtual_size = ? where id = ?').run(2n ** 63n - 1n, 2n ** 53n + 1n, id)
    assert.equal((await db.images.get(id, ADMIN)).size, 2 ** 63)
    const sort = [{ key: 'size', descending: true }] as const
    assert.equal((await db.images.list(imageQuery({ sort }), ADMIN))[0]?.virtualSize, 2 ** 53)
    await db.images.list(imageQuery({ sort, marker: id }), ADMIN)
  })

  it('microseconds order images and mark pages', async (t) => {
    const { db, raw } = await open(t)
    const ids: ImageId[] = []
    for (let n = 0; n < 6; n++) ids.push((await db.images.insert(newImage())).id)
    for (const [n, id] of ids.entries())
      raw
        .prepare('update images set created_at = ?, updated_at = null where id = ?')
        .run(`2024-05-06 07:08:09.00012${n}`, id)
    const seen: ImageId[] = []
    for (let page = await db.images.list(imageQuery({ limit: 2 }), ADMIN); page.length > 0; ) {
      seen.push(...page.map(({ id }) => id))
      assert.equal(page[0]?.updatedAt.toISOString(), '2024-05-06T07:08:09.000Z')
      page = await db.images.list(imageQuery({ limit: 2, marker: seen.at(-1) as ImageId }), ADMIN)
    }
    assert.deepEqual(seen, ids.toReversed())
  })

  it('what another program does to memberships shows in the list at once', async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage())
    const shown = async () => (await db.images.list(imageQuery(), MEMBER)).length
    const insert = raw.prepare(`insert into image_members (image_id, member, status, can_share, created_at, deleted)
      values (?, 'm', 'accepted', 0, '2024-01-01 00:00:00.000000', 0)`)
    insert.run(id)
    assert.equal(await shown(), 1)
    raw.exec(`update image_members set status = 'rejected'`)
    assert.equal(await shown(), 0)
    raw.exec(`update image_members set status = 'accepted'`)
    insert.run(id) // upstream's unique key lets two requests add one member
    assert.equal(await shown(), 1)
    assert.equal((await db.members.list(id)).length, 1)
    raw.exec('update image_members set deleted = 1 where id = (select min(id) from image_members)')
    assert.equal(await shown(), 1)
    raw.exec('delete from image_members where deleted = 0')
    assert.equal(await shown(), 0)
    raw.exec(`update image_members set deleted = 0, status = 'accepted'`)
    assert.equal(await shown(), 1)
  })

  it('two rows of one member are removed together', async (t) => {
    const { db, raw } = await open(t)
    const twice = async () => {
      const { id } = await db.images.insert(newImage())
      for (let n = 0; n < 2; n++)
        raw
          .prepare(`insert into image_members (image_id, member, status, can_share, created_at, deleted)
          values (?, 'm', 'accepted', 0, '2024-01-01 00:00:00.000000', 0)`)
          .run(id)
      return id
    }
    const one = await twice()
    await db.members.remove(one, 'm' as ProjectId)
    assert.deepEqual(await db.members.list(one), [])
    await db.images.remove(await twice(), ['queued'])
    assert.deepEqual(await db.images.list(imageQuery(), MEMBER), [])
  })

  it("images of upstream's delayed delete are left to their time", async (t) => {
    const { db, raw } = await open(t)
    const { id } = await db.images.insert(newImage())
    await db.images.update(id, { addLocations: [{ uri: 'x://1' as LocationUri, store: undefined, metadata: {} }] }, [
      'queued',
    ])
    raw.exec(`update images set deleted = 1, status = 'pending_delete'`)
    raw.exec(`update image_locations set deleted = 1, status = 'pending_delete'`)
    assert.deepEqual(await db.images.undropped(10), [])
  })
})
