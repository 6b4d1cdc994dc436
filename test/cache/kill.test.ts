import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { openSqliteDriver } from '../../src/cache/drivers/sqlite.ts'
import {
  ALL,
  bytesIn,
  download,
  filesIn,
  newFolder,
  newImage,
  newStore,
  openCache,
  until,
} from '../../src/cache/fixtures.ts'

/** Fills half of a copy and then waits. */
const child = join(import.meta.dirname, 'fill-child.ts')
const open = async (t: TestContext, dir: string) =>
  openCache(t, dir, { driver: await openSqliteDriver(dir, 'cache.db') })
const signal = () => new AbortController().signal

describe('image cache of a process that is killed', () => {
  it('keeps no unfinished file, and its neighbours go on', async (t) => {
    const dir = await newFolder(t)
    const id = '33333333-3333-4333-8333-333333333333'
    const filler = spawn(process.execPath, [child, dir, id], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const killed = once(filler, 'exit')
    await once(filler.stdout, 'data') // it has written half of the file, and waits for ever
    const cache = await open(t, dir)
    const image = newImage(1_000_000, { id: id as never, data: Buffer.alloc(1_000_000, 'data') })
    const store = newStore(image)
    assert.deepEqual(await filesIn(dir, 'incomplete'), [id])
    assert.equal((await readFile(join(dir, 'incomplete', id))).length, 500_000)
    const along = cache.read(image, ALL(image), { signal: signal(), fetch: store.fetch })
    const bytes = (await along)?.[Symbol.asyncIterator]()
    assert.ok(bytes)
    assert.equal(store.reads.length, 0, 'it reads along')
    await bytes.next()
    filler.kill('SIGKILL')
    await killed
    let got = 0
    for (let next = await bytes.next(); !next.done; next = await bytes.next()) got += next.value.length
    assert.ok(got >= 500_000)
    assert.equal(store.reads.length, 1, 'the rest comes from the store')
    const isCached = async () => {
      assert.deepEqual(await download(cache, image, store), image.data)
      return (await cache.list()).length === 1
    }
    await until(isCached, 'a copy by the one that is left')
    const next = await open(t, dir)
    assert.deepEqual([await filesIn(dir, 'incomplete'), (await next.list()).length], [[], 1])
  })

  it('is swept by the next one that starts', async (t) => {
    const dir = await newFolder(t)
    const id = '44444444-4444-4444-8444-444444444444'
    const filler = spawn(process.execPath, [child, dir, id], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const killed = once(filler, 'exit')
    await once(filler.stdout, 'data')
    filler.kill('SIGKILL')
    await killed
    assert.equal(await bytesIn(dir), 500_000)
    await open(t, dir)
    assert.deepEqual([await bytesIn(dir), await filesIn(dir, 'incomplete')], [0, []])
  })
})
