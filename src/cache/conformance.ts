import assert from 'node:assert/strict'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { CacheDriver } from './driver.ts'
import { download, filesIn, newFolder, newImage, newStore, openCache, until } from './fixtures.ts'

export interface CacheHarness {
  readonly name: string
  /** The index of the cache in `dir`; what was recorded there by an earlier one is known to it. */
  open(t: TestContext, dir: string): Promise<CacheDriver>
  /** Why not here. */
  readonly skip?: string | undefined
}

/** What a cache does, whatever keeps its index. */
export function cacheConformance({ name, open, skip }: CacheHarness): void {
  describe(`image cache with ${name}`, { skip: skip ?? false }, () => {
    const openIn = async (t: TestContext, dir: string, maxSize = 1e9) =>
      openCache(t, dir, { driver: await open(t, dir), maxSize })

    it('keeps what is downloaded, and counts its readers', async (t) => {
      const cache = await openIn(t, await newFolder(t))
      const [image, began] = [newImage(300_000), Date.now()]
      const store = newStore(image)
      for (let i = 0; i < 3; i++) assert.deepEqual(await download(cache, image, store), image.data)
      assert.deepEqual(store.reads, [{ offset: 0, length: 300_000 }])
      await until(async () => (await cache.list())[0]?.hits === 2, 'two hits')
      const [listed, ...others] = await cache.list()
      assert.deepEqual([listed?.imageId, listed?.size, others], [image.id, 300_000, []])
      for (const time of [listed?.lastAccessed, listed?.lastModified]) {
        assert.ok(Math.abs((time?.getTime() ?? 0) - began) < 10_000)
      }
    })

    it('knows after a restart what it knew before', async (t) => {
      const dir = await newFolder(t)
      const first = await openIn(t, dir)
      const image = newImage(1000)
      for (let i = 0; i < 2; i++) await download(first, image, newStore(image))
      await until(async () => (await first.list())[0]?.hits === 1, 'a hit')
      const before = await first.list()
      await first.close()
      const second = await openIn(t, dir)
      assert.deepEqual(await second.list(), before)
      const store = newStore(image)
      await download(second, image, store)
      assert.deepEqual(store.reads, [])
    })

    it('takes over copies without a record, and forgets records without a copy', async (t) => {
      const dir = await newFolder(t)
      const first = await openIn(t, dir)
      const [lost, found] = [newImage(1000), newImage(2000)]
      await download(first, lost, newStore(lost))
      await first.close()
      await rm(join(dir, lost.id))
      await writeFile(join(dir, found.id), found.data)
      const second = await openIn(t, dir)
      const listed = (await second.list()).map(({ imageId, size, hits }) => ({ imageId, size, hits }))
      assert.deepEqual(listed, [{ imageId: found.id, size: 2000, hits: 0 }])
      const store = newStore(found)
      assert.deepEqual(await download(second, found, store), found.data)
      assert.deepEqual(store.reads, [])
    })

    it('does not serve the data of before, when an image got other data', async (t) => {
      const dir = await newFolder(t)
      const cache = await openIn(t, dir)
      const old = newImage(5000)
      await download(cache, old, newStore(old))
      await cache.list()
      const longer = newImage(6000, { id: old.id })
      assert.deepEqual(await download(cache, longer, newStore(longer)), longer.data)
      await cache.list()
      const sameSize = newImage(6000, { id: old.id })
      assert.deepEqual(await download(cache, sameSize, newStore(sameSize)), sameSize.data)
    })

    it('makes room by what was read longest ago', async (t) => {
      const dir = await newFolder(t)
      const cache = await openIn(t, dir, 3500)
      const images = [1, 2, 3, 4].map(() => newImage(1000))
      const [a, b, c, d] = images as [(typeof images)[0], (typeof images)[0], (typeof images)[0], (typeof images)[0]]
      const read = async (image: typeof a) => {
        await download(cache, image, newStore(image))
        await cache.list()
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
      for (const image of [a, b, c, a, d]) await read(image)
      const left = (await cache.list()).map(({ imageId }) => imageId)
      assert.deepEqual(left, [a.id, c.id, d.id].toSorted())
      assert.deepEqual(await filesIn(dir, 'incomplete'), [])
    })

    it('keeps an image of no bytes too', async (t) => {
      const cache = await openIn(t, await newFolder(t))
      const image = newImage(0)
      const store = newStore(image)
      for (let i = 0; i < 2; i++) assert.equal((await download(cache, image, store)).length, 0)
      await until(async () => (await cache.list()).length === 1, 'the copy')
      assert.equal(store.reads.length, 1)
    })

    it('evicts one, and all', async (t) => {
      const dir = await newFolder(t)
      const cache = await openIn(t, dir)
      const images = [newImage(1000), newImage(1000), newImage(1000)]
      for (const image of images) await download(cache, image, newStore(image))
      await cache.list()
      const [first] = images
      assert.equal(await cache.evict(first?.id as never), true)
      assert.equal(await cache.evict(first?.id as never), false)
      assert.equal((await cache.list()).length, 2)
      assert.equal(await cache.evictAll(), 2)
      assert.deepEqual(await cache.list(), [])
      assert.deepEqual(
        (await readdir(dir)).filter((name) => /^[0-9a-f-]{36}$/.test(name)),
        [],
      )
    })
  })
}
