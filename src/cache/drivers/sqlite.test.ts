import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it } from 'node:test'
import { cacheConformance } from '../conformance.ts'
import { download, newFolder, newImage, newStore, openCache, until } from '../fixtures.ts'
import { openSqliteDriver } from './sqlite.ts'

cacheConformance({ name: 'sqlite', open: (_, dir) => openSqliteDriver(dir, 'cache.db') })

it('files and rows of a node of upstream are used, and stay readable for it', async (t) => {
  const dir = await newFolder(t)
  const image = newImage(1000)
  await writeFile(join(dir, image.id), image.data)
  const raw = new DatabaseSync(join(dir, 'cache.db'))
  t.after(() => raw.close())
  raw.exec(`CREATE TABLE cached_images (image_id TEXT PRIMARY KEY, last_accessed REAL DEFAULT 0.0,
    last_modified REAL DEFAULT 0.0, size INTEGER DEFAULT 0, hits INTEGER DEFAULT 0, checksum TEXT);
    INSERT INTO cached_images (image_id, last_accessed, last_modified, size, hits)
      VALUES ('${image.id}', 1700000000.25, 1600000000.5, 1000, 41)`)
  const cache = await openCache(t, dir, { driver: await openSqliteDriver(dir, 'cache.db') })
  const [before] = await cache.list()
  assert.deepEqual([before?.hits, before?.lastAccessed], [41, new Date(1_700_000_000_250)])
  const store = newStore(image)
  assert.deepEqual(await download(cache, image, store), image.data)
  assert.deepEqual(store.reads, [])
  await until(async () => (await cache.list())[0]?.hits === 42, 'the hit')
  const other = newImage(500)
  await download(cache, other, newStore(other))
  await cache.list()
  const rows = raw.prepare('SELECT image_id, last_accessed, size, hits FROM cached_images ORDER BY size').all()
  assert.deepEqual(
    rows.map((row) => [
      row['image_id'],
      Math.abs(Number(row['last_accessed']) * 1000 - Date.now()) < 10_000,
      row['hits'],
    ]),
    [
      [other.id, true, 0],
      [image.id, true, 42],
    ],
  )
})

it('an index that a power failure has spoilt is begun anew', async (t) => {
  const dir = await newFolder(t)
  const image = newImage(1000)
  await writeFile(join(dir, image.id), image.data)
  await writeFile(join(dir, 'cache.db'), 'not a database, though long enough to be taken for one'.repeat(100))
  const cache = await openCache(t, dir, { driver: await openSqliteDriver(dir, 'cache.db') })
  assert.deepEqual(
    (await cache.list()).map(({ imageId, hits }) => [imageId, hits]),
    [[image.id, 0]],
  )
})
