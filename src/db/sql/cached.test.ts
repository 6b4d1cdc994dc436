import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ImageId } from '../../domain/ids.ts'
import { cachedConformance } from '../cached-conformance.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'

cachedConformance({
  name: 'SQLite',
  open: async (t) => {
    const db = await openDatabase('sqlite://')
    t.after(() => db.close())
    return db
  },
})

it('rows are as upstream writes them', async (t) => {
  const file = await newFile(t)
  const db = await openDatabase(`sqlite:///${file}`)
  t.after(() => db.close())
  const raw = openRaw(t, file)
  raw.exec(`INSERT INTO node_reference VALUES (7, 'http://node');
    INSERT INTO cached_images VALUES (3, 'i', '2026-01-02 03:04:05.678901', '2026-01-01 00:00:00.000000', 9, 2, NULL, 7)`)
  await db.cached.addNode('http://node')
  const [found] = await db.cached.list('http://node')
  const lastModified = new Date('2026-01-01T00:00:00Z')
  const lastAccessed = new Date('2026-01-02T03:04:05.678Z')
  const imageId = 'i' as ImageId
  assert.deepEqual(found, { row: 3, imageId, size: 9, hits: 2, lastAccessed, lastModified, checksum: null })
  await db.cached.touch('http://node', { ...found, lastAccessed: new Date('2026-02-01T00:00:00Z') })
  const [row] = raw.prepare('SELECT hits, last_accessed, node_reference_id FROM cached_images').all()
  assert.deepEqual({ ...row }, { hits: 3, last_accessed: '2026-02-01 00:00:00.000000', node_reference_id: 7 })
})
