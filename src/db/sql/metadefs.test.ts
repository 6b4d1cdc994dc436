import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { ProjectId } from '../../domain/ids.ts'
import { metadefConformance } from '../metadef-conformance.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'

const opened = async (t: TestContext, url: string) => {
  const db = await openDatabase(url)
  t.after(() => db.close())
  return db
}

metadefConformance({ name: 'SQLite memory', open: (t) => opened(t, 'sqlite://') })

describe('metadata definitions as upstream writes and reads them', () => {
  const NONE = { objects: [], properties: [], tags: [], associations: [] }
  const namespace = {
    name: 'N',
    displayName: null,
    description: null,
    visibility: 'public',
    protected: false,
    owner: 'o' as ProjectId,
  } as const
  const open = async (t: TestContext) => {
    const file = await newFile(t)
    return { db: await opened(t, `sqlite:///${file}`), raw: openRaw(t, file) }
  }

  it('what an object needs has commas between, and schemas are JSON', async (t) => {
    const { db, raw } = await open(t)
    const objects = [
      { name: 'o', description: null, required: ['a', 'b'], properties: new Map([['a', { type: 'x' }]]) },
    ]
    const properties = [{ name: 'p', schema: { name: 'p', type: 'y' } }]
    await db.metadefs.insert(namespace, { ...NONE, objects, properties })
    const object = raw.prepare('select required, json_schema from metadef_objects').get()
    assert.deepEqual({ ...object }, { required: 'a,b', json_schema: '{"a":{"type":"x"}}' })
    const property = raw.prepare('select json_schema from metadef_properties').get()
    assert.deepEqual({ ...property }, { json_schema: '{"name":"p","type":"y"}' })
  })

  it('rows of its loader have no second time, no visibility, and perhaps no properties', async (t) => {
    const { db, raw } = await open(t)
    raw.exec(
      `insert into metadef_namespaces (id, namespace, owner, created_at) values (7, 'N', 'admin', '2020-01-02 03:04:05')`,
    )
    raw.exec(
      `insert into metadef_objects (namespace_id, name, json_schema, created_at) values (7, 'o', 'null', '2020-01-02 03:04:05')`,
    )
    const { visibility, protected: kept, updatedAt } = await db.metadefs.get('N', { admin: true, project: undefined })
    assert.deepEqual([visibility, kept, updatedAt], ['private', false, undefined])
    const object = await db.metadefs.objects.get('N', 'o')
    assert.deepEqual([object.required, object.properties.size], [[], 0])
  })

  it('resource types are protected when they come from a file', async (t) => {
    const { db, raw } = await open(t)
    const associations = (name: string) => ({ ...NONE, associations: [{ name, prefix: null, target: null }] })
    await db.metadefs.load(namespace, associations('file'), 'skip')
    await db.metadefs.insert({ ...namespace, name: 'M' }, associations('client'))
    const rows = raw.prepare('select name, protected from metadef_resource_types order by name').all()
    assert.deepEqual(
      rows.map((row) => ({ ...row })),
      [
        { name: 'client', protected: 0 },
        { name: 'file', protected: 1 },
      ],
    )
  })
})
