import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import { openDatabase } from '../../db/sql/connect.ts'
import { cacheConformance } from '../conformance.ts'
import { download, newFolder, newImage, newStore, openCache } from '../fixtures.ts'
import { openLayout } from '../layout.ts'
import { moveRecords } from '../migrate.ts'
import { openCentralDriver } from './central.ts'
import { openSqliteDriver } from './sqlite.ts'

const HERE = 'http://10.0.0.1:9292'

cacheConformance({
  name: 'centralized_db',
  open: async (t, dir) => {
    const db = await openDatabase(`sqlite:///${dir}/glance.sqlite`)
    t.after(() => db.close())
    return openCentralDriver(db.cached, HERE)
  },
})

it('every node sees who has an image', async (t) => {
  const db = await openDatabase('sqlite://')
  t.after(() => db.close())
  const image = newImage(1000)
  const caches = []
  for (const node of [HERE, 'http://10.0.0.2:9292']) {
    const cache = await openCache(t, await newFolder(t), { driver: await openCentralDriver(db.cached, node) })
    await download(cache, image, newStore(image))
    await cache.list()
    caches.push(cache)
  }
  const [first, second] = caches
  assert.deepEqual(await first?.nodes?.(image.id), [HERE, 'http://10.0.0.2:9292'])
  await first?.evict(image.id)
  assert.deepEqual(await second?.nodes?.(image.id), ['http://10.0.0.2:9292'])
})

it('what a file said of the cache is moved, but for what is known better', async (t) => {
  const dir = await newFolder(t)
  const db = await openDatabase('sqlite://')
  t.after(() => db.close())
  const layout = await openLayout(dir)
  const [file, central] = [await openSqliteDriver(dir, 'cache.db'), await openCentralDriver(db.cached, HERE)]
  const images = [newImage(10), newImage(20), newImage(30)]
  const [moved, known, gone] = images
  for (const [index, image] of images.entries()) {
    await writeFile(join(dir, image.id), image.data)
    const copy = await layout.copy(image.id)
    assert.ok(copy)
    const times = { lastAccessed: new Date(1_700_000_000_000), lastModified: new Date(1_600_000_000_000) }
    const record = { imageId: image.id, size: image.size ?? 0, hits: 5, checksum: null, ...times }
    await file.add(copy, record)
    if (index === 1) await central.add(copy, { ...record, hits: 9 })
  }
  await layout.removeCopy(gone?.id as never)
  await moveRecords(layout, file, central)
  assert.deepEqual(await file.all(), [])
  await file.close()
  const rows = (await db.cached.list(HERE)).map(({ imageId, hits, lastAccessed }) => [imageId, hits, +lastAccessed])
  assert.deepEqual(rows, [
    [known?.id, 9, 1_700_000_000_000],
    [moved?.id, 5, 1_700_000_000_000],
  ])
})
