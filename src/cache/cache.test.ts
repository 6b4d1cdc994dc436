import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { ImageCache } from './cache.ts'
import { openSqliteDriver } from './drivers/sqlite.ts'
import {
  ALL,
  bytesIn,
  collect,
  download,
  filesIn,
  newFolder,
  newImage,
  newStore,
  type OpenOptions,
  openCache as open,
  type TestImage,
  until,
} from './fixtures.ts'

const openCache = async (t: TestContext, dir: string, options: Partial<OpenOptions> = {}) =>
  open(t, dir, { driver: await openSqliteDriver(dir, 'cache.db'), ...options })
const signal = () => new AbortController().signal
const NOTHING_GROWS = ['ledger.db']

describe('image cache', () => {
  it('reads the store once for fifty clients at once', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir)
    const image = newImage(3_000_000)
    const store = newStore(image, { held: true })
    const clients = Array.from({ length: 50 }, () => download(cache, image, store))
    await until(() => store.reads.length === 1, 'the read')
    for (const upTo of [100_000, 1_000_000, 2_999_999]) {
      store.allow(upTo)
      await delay(20)
    }
    store.allow()
    for (const got of await Promise.all(clients)) assert.ok(got.equals(image.data))
    assert.equal(store.reads.length, 1)
    const [copy] = await cache.list()
    assert.equal(copy?.size, 3_000_000)
    assert.deepEqual([await filesIn(dir, 'incomplete'), await filesIn(dir, 'fills')], [[], NOTHING_GROWS])
  })

  it('lets clients of another process read along', async (t) => {
    const dir = await newFolder(t)
    const [here, there] = [await openCache(t, dir), await openCache(t, dir)]
    const image = newImage(2_000_000)
    const [store, other] = [newStore(image, { held: true }), newStore(image)]
    const first = download(here, image, store)
    await until(() => store.reads.length === 1, 'the read')
    store.allow(500_000)
    const source = await there.read(image, ALL(image), { signal: signal(), fetch: other.fetch })
    const bytes = source?.[Symbol.asyncIterator]()
    assert.ok(bytes)
    const { value: part } = await bytes.next()
    assert.ok(part?.length > 0 && part.equals(image.data.subarray(0, part.length)))
    const along = Array.from({ length: 20 }, () => download(there, image, other))
    store.allow()
    for (const got of await Promise.all([first, ...along])) assert.ok(got.equals(image.data))
    await bytes.return?.()
    assert.deepEqual([store.reads.length, other.reads.length], [1, 0])
    assert.equal((await here.list()).length, 1)
  })

  it('goes on from the store when the process that fills is no more', async (t) => {
    const dir = await newFolder(t)
    const [here, there] = [await openCache(t, dir), await openCache(t, dir)]
    const image = newImage(1_000_000)
    const [store, other] = [newStore(image, { held: true }), newStore(image)]
    const first = await here.read(image, ALL(image), { signal: signal(), fetch: store.fetch })
    await first?.[Symbol.asyncIterator]().return?.()
    store.allow(400_000)
    const reading = download(there, image, other)
    await delay(50)
    await here.close()
    assert.ok((await reading).equals(image.data))
    assert.equal(other.reads.length, 1)
    assert.ok((other.reads[0]?.offset ?? 0) > 0, 'what was read already is not read again')
    assert.deepEqual(await filesIn(dir, 'incomplete'), [])
  })

  it('lets nobody read along whose image has got other data meanwhile', async (t) => {
    const dir = await newFolder(t)
    const caches = [await openCache(t, dir), await openCache(t, dir)]
    const old = newImage(100_000)
    const image = newImage(100_000, { id: old.id })
    const store = newStore(old, { held: true })
    const first = download(caches[0] as ImageCache, old, store)
    await until(() => store.reads.length === 1, 'the read')
    for (const cache of caches) assert.ok((await download(cache, image, newStore(image))).equals(image.data))
    store.allow()
    assert.ok((await first).equals(old.data))
    for (const cache of caches) assert.ok((await download(cache, image, newStore(image))).equals(image.data))
  })

  it('completes the copy though its only client goes, or stands still', async (t) => {
    for (const leaves of [true, false]) {
      const cache = await openCache(t, await newFolder(t))
      const image = newImage(5_000_000)
      const store = newStore(image)
      const client = new AbortController()
      const source = await cache.read(image, ALL(image), { signal: client.signal, fetch: store.fetch })
      const bytes = source?.[Symbol.asyncIterator]()
      await bytes?.next()
      if (leaves) client.abort(new Error('gone'))
      await until(async () => (await cache.list()).length === 1, 'the copy')
      if (leaves) await assert.rejects(async () => bytes?.next(), /gone/)
      else await bytes?.return?.()
    }
  })

  it('keeps no data that is not what its checksum says, and does not pass it for complete', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir)
    const image = newImage(200_000, { checksum: 'd41d8cd98f00b204e9800998ecf8427e' })
    const source = await cache.read(image, ALL(image), { signal: signal(), fetch: newStore(image).fetch })
    let got = 0
    await assert.rejects(async () => {
      for await (const chunk of source ?? []) got += chunk.length
    }, /not what its checksum says/)
    assert.ok(got < 200_000)
    await until(async () => (await filesIn(dir, 'incomplete')).length === 0, 'nothing left')
    assert.deepEqual(await cache.list(), [])
    assert.equal(await bytesIn(dir), 0)
  })

  it('without an md5 sum goes by the other digest, and by the length without any', async (t) => {
    const cache = await openCache(t, await newFolder(t))
    const good = newImage(1000, { checksum: null })
    const none = newImage(1000, { checksum: null, osHashAlgo: null, osHashValue: null })
    const bad = newImage(1000, { checksum: null, osHashValue: 'abc' })
    for (const image of [good, none]) assert.deepEqual(await download(cache, image, newStore(image)), image.data)
    await assert.rejects(download(cache, bad, newStore(bad)), /checksum/)
    await until(async () => (await cache.list()).length === 2, 'two copies')
  })

  it('gives up a copy whose store fails, and its clients ask again', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir)
    const image = newImage(500_000)
    const [failing, sound] = [newStore(image, { held: true }), newStore(image)]
    let first = true
    const fetch: typeof sound.fetch = (range, signal) => {
      if (!first) return sound.fetch(range, signal)
      first = false
      return failing.fetch(range, signal)
    }
    const clients = [1, 2, 3].map(() => download(cache, image, { fetch }))
    await until(() => failing.reads.length === 1, 'the read')
    failing.allow(100_000)
    await delay(20)
    failing.fail(new Error('the store is on fire'))
    for (const got of await Promise.all(clients)) assert.ok(got.equals(image.data))
    await until(async () => (await filesIn(dir, 'incomplete')).length === 0, 'nothing left')
    assert.deepEqual(await cache.list(), [])
  })

  it('serves ranges from a copy, from what has grown already, and not before', async (t) => {
    const cache = await openCache(t, await newFolder(t))
    const image = newImage(1_000_000)
    const store = newStore(image, { held: true })
    const range = { offset: 300_000, length: 400_000 }
    const wanted = image.data.subarray(300_000, 700_000)
    const read = async () => cache.read(image, range, { signal: signal(), fetch: store.fetch })
    assert.equal(await read(), undefined, 'a range alone makes no copy')
    const all = download(cache, image, store)
    await until(() => store.reads.length === 1, 'the read')
    assert.equal(await read(), undefined, 'the store is quicker')
    store.allow(350_000)
    let growing = await read()
    await until(async () => {
      growing ??= await read()
      return growing !== undefined
    }, 'the range to be reached')
    store.allow()
    assert.ok((await collect(growing)).equals(wanted))
    await all
    await cache.list()
    assert.ok((await collect(await read())).equals(wanted))
    assert.equal(store.reads.length, 1)
  })

  it('is never larger than it may be, whoever fills it', async (t) => {
    const dir = await newFolder(t)
    const maxSize = 1_000_000
    const caches = [await openCache(t, dir, { maxSize }), await openCache(t, dir, { maxSize })]
    const images = Array.from({ length: 30 }, (_, index) => newImage(50_000 + index * 15_000))
    let most = 0
    let watching = true
    const watch = (async () => {
      while (watching) {
        most = Math.max(most, await bytesIn(dir))
        await delay(1)
      }
    })()
    const readAll = (image: TestImage, index: number) =>
      [0, 1, 2].map(async (round) => {
        await delay(((index * 7 + round * 13) % 30) * 5)
        const cache = caches[(index + round) % 2]
        assert.ok(cache)
        assert.ok((await download(cache, image, newStore(image, { chunk: 10_000 }))).equals(image.data))
      })
    await Promise.all(images.flatMap(readAll))
    watching = false
    await watch
    assert.ok(most > 300_000, `${most} bytes: something was cached`)
    assert.ok(most <= maxSize, `${most} bytes`)
    for (const cache of caches) await cache.list()
    assert.ok((await bytesIn(dir)) <= maxSize)
  })

  it('streams past itself what is larger than all of it', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir, { maxSize: 10_000 })
    const [small, large] = [newImage(10_000), newImage(10_001)]
    await download(cache, small, newStore(small))
    await cache.list()
    const store = newStore(large)
    assert.ok((await download(cache, large, store)).equals(large.data))
    assert.deepEqual(
      (await cache.list()).map(({ imageId }) => imageId),
      [small.id],
    )
    assert.equal(await cache.fill(large, store.fetch), false)
  })

  it('is within its bound from the start, and prunes what is above it', async (t) => {
    const dir = await newFolder(t)
    const first = await openCache(t, dir)
    const images = [newImage(1000), newImage(1000), newImage(1000)]
    for (const image of images) {
      await download(first, image, newStore(image))
      await first.list()
      await delay(5)
    }
    const second = await openCache(t, dir, { maxSize: 2500 })
    assert.deepEqual(
      (await second.list()).map(({ imageId }) => imageId),
      images
        .slice(1)
        .map(({ id }) => id)
        .toSorted(),
    )
    assert.deepEqual(await second.prune(), { files: 0, bytes: 0 })
    const extra = newImage(2000)
    await writeFile(join(dir, extra.id), extra.data)
    assert.deepEqual(await second.prune(), { files: 2, bytes: 2000 })
  })

  it('does not keep what was evicted while it grew', async (t) => {
    const dir = await newFolder(t)
    const [here, there] = [await openCache(t, dir), await openCache(t, dir)]
    const image = newImage(100_000)
    const store = newStore(image, { held: true })
    const client = download(here, image, store)
    await until(() => store.reads.length === 1, 'the read')
    await there.evict(image.id)
    store.allow()
    assert.ok((await client).equals(image.data))
    assert.deepEqual(await here.list(), [])
    assert.equal(await bytesIn(dir), 0)
  })

  it('serves the queue in order, one process at a time, and leaves what failed', async (t) => {
    const dir = await newFolder(t)
    const [here, there] = [await openCache(t, dir), await openCache(t, dir)]
    const images = [newImage(1000), newImage(1000), newImage(1000)]
    const [, bad] = images
    for (const { id } of images) {
      assert.equal(await here.enqueue(id), true)
      assert.equal(await there.enqueue(id), false)
    }
    const ids = images.map(({ id }) => id)
    assert.deepEqual(await there.queued(), ids)
    const taken: string[] = []
    let busy = 0
    const take = (cache: typeof here) => async (id: string) => {
      busy += 1
      assert.equal(busy, 1)
      taken.push(id)
      await delay(10)
      const image = images.find((one) => one.id === id)
      if (image && image !== bad) await cache.fill(image, newStore(image).fetch)
      busy -= 1
    }
    await Promise.all([here.serveQueue(take(here)), there.serveQueue(take(there)), here.serveQueue(take(here))])
    assert.deepEqual(taken.slice(0, 3), ids)
    assert.deepEqual(await here.queued(), [bad?.id])
    assert.equal((await there.list()).length, 2)
    assert.equal(await there.dequeueAll(), 1)
    await here.enqueue(bad?.id as never)
    const before = taken.length
    await there.serveQueue(take(there))
    assert.equal(taken.length, before + 1, 'the turn was given back')
  })

  it('an id that leads out of the folder is refused', async (t) => {
    const cache = await openCache(t, await newFolder(t))
    for (const id of ['../x', '.', '..', 'a/b', 'a\0b', '']) {
      await assert.rejects(cache.enqueue(id as never), /cannot be the id/)
    }
  })

  it('cleans what failed and what is old, and nothing that grows', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir, { stallMs: 100 })
    const image = newImage(100_000)
    const store = newStore(image, { held: true })
    const client = download(cache, image, store)
    await until(() => store.reads.length === 1, 'the read')
    await writeFile(join(dir, 'invalid', newImage(1).id), 'x')
    await writeFile(join(dir, 'incomplete', newImage(1).id), 'x')
    await delay(150)
    await writeFile(join(dir, 'incomplete', 'young'), 'x')
    await cache.clean()
    assert.deepEqual([await filesIn(dir, 'invalid'), await filesIn(dir, 'incomplete')], [[], [image.id, 'young']])
    store.allow()
    await client
    assert.equal((await cache.list()).length, 1)
  })

  it('a cache that fails is no reason for a download to fail', async (t) => {
    const dir = await newFolder(t)
    const cache = await openCache(t, dir)
    const image = newImage(100_000)
    await rm(dir, { recursive: true })
    assert.ok((await download(cache, image, newStore(image))).equals(image.data))
    await mkdir(join(dir, 'fills'), { recursive: true })
  })
})

describe('image cache on a full disk', () => {
  const skip = process.getuid?.() === 0 ? false : 'only root can mount a small disk'

  it('serves from the store, and leaves nothing behind', { skip }, async (t) => {
    const dir = await newFolder(t)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', dir])
    try {
      const cache = await openCache(t, dir)
      const image = newImage(6_000_000)
      const store = newStore(image, { held: true })
      const clients = [1, 2, 3].map(() => download(cache, image, store))
      await until(() => store.reads.length === 1, 'the read')
      store.allow(1_000_000)
      await writeFile(join(dir, 'ballast'), Buffer.alloc(5_000_000))
      store.allow()
      for (const got of await Promise.all(clients)) assert.ok(got.equals(image.data))
      await until(async () => (await filesIn(dir, 'incomplete')).length === 0, 'nothing left')
      assert.deepEqual(await cache.list(), [])
      // A disk that is known to be short is not filled in the first place, and old copies make room.
      assert.equal(await cache.fill(image, newStore(image).fetch), false)
      await rm(join(dir, 'ballast'))
      const other = newImage(6_000_000)
      assert.equal(await cache.fill(image, newStore(image).fetch), true)
      assert.equal(await cache.fill(other, newStore(other).fetch), true)
      assert.deepEqual(
        (await cache.list()).map(({ imageId }) => imageId),
        [other.id],
      )
      await cache.close()
    } finally {
      execFileSync('umount', ['-l', dir])
    }
  })
})
