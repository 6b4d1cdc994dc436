import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ImageId } from '../../domain/ids.ts'
import { newImage } from '../conformance.ts'
import { PURGED_TABLES, type PurgedTable } from '../database.ts'
import { maintenanceConformance } from '../maintenance-conformance.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'

maintenanceConformance({
  name: 'SQLite',
  open: async (t) => {
    const db = await openDatabase('sqlite://')
    t.after(() => db.close())
    return db
  },
  openTwice: async (t) => {
    const url = `sqlite:///${await newFile(t)}`
    const [one, other] = [await openDatabase(url), await openDatabase(url)]
    t.after(async () => {
      await one.close()
      await other.close()
    })
    return [one, other]
  },
})

const OLD = '2001-02-03 04:05:06.000007'
const ALL = [...PURGED_TABLES, 'images'] as const
const before = { before: '2020-01-01 00:00:00.000000' } as const

it("what upstream's delayed delete may restore stays, with all that belongs to it", async (t) => {
  const file = await newFile(t)
  const db = await openDatabase(`sqlite:///${file}`)
  t.after(() => db.close())
  const raw = openRaw(t, file)
  await db.images.insert(newImage({ tags: ['t'], properties: new Map([['p', 'v']]) }))
  raw.exec(`update images set deleted = 1, deleted_at = '${OLD}', status = 'pending_delete'`)
  for (const table of ['image_tags', 'image_properties'])
    raw.exec(`update ${table} set deleted = 1, deleted_at = '${OLD}'`)
  const purgeable = async (table: PurgedTable) =>
    (await db.maintenance.purgeable({ table, deleted: before }, 10)).keys.length
  for (const table of ALL) assert.equal(await purgeable(table), 0, table)
  raw.exec(`update images set status = 'deleted'`)
  for (const table of ['image_tags', 'image_properties', 'images'] as const)
    assert.equal(await purgeable(table), 1, table)
})

it('a row that upstream revived is alive, although it kept the time of its deletion', async (t) => {
  const file = await newFile(t)
  const db = await openDatabase(`sqlite:///${file}`)
  t.after(() => db.close())
  const raw = openRaw(t, file)
  const { id } = await db.images.insert(newImage({ properties: new Map([['p', 'v']]) }))
  raw.exec(`update image_properties set deleted_at = '${OLD}'`)
  const scope = { table: 'image_properties', deleted: before } as const
  assert.deepEqual((await db.maintenance.purgeable(scope, 10)).keys, [])
  assert.equal(await db.maintenance.purge(scope, [1]), 0)
  const { properties } = await db.images.get(id as ImageId, { admin: true, project: undefined })
  assert.equal(properties.get('p'), 'v')
})
