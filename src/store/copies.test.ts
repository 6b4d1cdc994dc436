import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId, StoreId } from '../domain/ids.ts'
import type { ByteSource } from '../io/bytes.ts'
import type { StoreDriver } from './driver.ts'
import { openMemoryDriver } from './drivers/memory.ts'
import { type CopiesOptions, openStores, type Stores } from './stores.ts'

const DATA = Buffer.alloc(3_000_000, 'image data ')
const NAMES = ['one', 'two', 'three'] as const
const FULL = new ServiceError('too-large', 'full')

function open(
  t: TestContext,
  change: Partial<Record<(typeof NAMES)[number], (driver: StoreDriver) => StoreDriver>> = {},
) {
  const data = NAMES.map(() => new Map<string, Buffer>())
  const stores: Stores = openStores({
    multi: true,
    defaultStore: 'one',
    stores: NAMES.map((id, index) => {
      const kept = data[index]
      const driver = openMemoryDriver(kept === undefined ? {} : { data: kept })
      return { id, driver: change[id]?.(driver) ?? driver }
    }),
  })
  t.after(() => stores.close())
  return { stores, data }
}

function source() {
  const state = { reads: 0 }
  async function* bytes(): ByteSource {
    state.reads++
    for (let at = 0; at < DATA.length; at += 100_000) yield DATA.subarray(at, at + 100_000)
  }
  return { bytes: bytes(), state }
}

const options = (change: Partial<CopiesOptions> = {}): CopiesOptions => ({
  attempt: 'attempt' as AttemptId,
  signal: new AbortController().signal,
  hashAlgorithm: 'sha512',
  size: DATA.length,
  allMustSucceed: true,
  ...change,
})

/** Fails after some bytes. */
const failing = (driver: StoreDriver): StoreDriver => ({
  ...driver,
  write: async (_, body) => {
    let seen = 0
    for await (const chunk of body) {
      seen += chunk.length
      if (seen > 500_000) throw FULL
    }
    throw new Error('the body was too short')
  },
})

describe('putCopies()', () => {
  const id = () => randomUUID() as ImageId

  it('fills several stores from one reading', async (t) => {
    const { stores, data } = open(t)
    const { bytes, state } = source()
    const image = id()
    const copies = await stores.putCopies(image, bytes, stores.all, options())
    assert.equal(state.reads, 1)
    for (const kept of data) assert.deepEqual(kept.get(image), DATA)
    assert.deepEqual(
      copies.locations.map(({ store }) => store),
      NAMES,
    )
    assert.equal(copies.size, DATA.length)
    assert.equal(copies.checksum, createHash('md5').update(DATA).digest('hex'))
    assert.equal(copies.osHashValue, createHash('sha512').update(DATA).digest('hex'))
    assert.deepEqual(copies.failures, [])
  })

  it('goes on without a store that fails, where not all must succeed', async (t) => {
    const { stores, data } = open(t, { two: failing })
    const image = id()
    const copies = await stores.putCopies(image, source().bytes, stores.all, options({ allMustSucceed: false }))
    assert.deepEqual(
      copies.locations.map(({ store }) => store),
      ['one', 'three'],
    )
    assert.deepEqual(
      copies.failures.map(({ store }) => store),
      ['two' as StoreId],
    )
    assert.deepEqual(
      data.map((kept) => kept.get(image)?.length),
      [DATA.length, undefined, DATA.length],
    )
  })

  it('fails in every store with the first that fails, where all must succeed', async (t) => {
    const { stores, data } = open(t, { three: failing })
    await assert.rejects(stores.putCopies(id(), source().bytes, stores.all, options()), (error) => {
      assert.ok(hasKind(error, 'too-large'))
      return error.detail['store'] === 'three'
    })
    assert.deepEqual(
      data.map((kept) => kept.size),
      [0, 0, 0],
    )
  })

  it('fails when no store is left, with the reason of the first', async (t) => {
    const { stores } = open(t, { one: failing, two: failing, three: failing })
    const copies = stores.putCopies(id(), source().bytes, stores.all, options({ allMustSucceed: false }))
    await assert.rejects(copies, (error) => hasKind(error, 'too-large'))
  })

  it('keeps nothing when a tap refuses the data at their end', async (t) => {
    const { stores, data } = open(t)
    const end = () => {
      throw new ServiceError('unsupported-media-type', 'no image')
    }
    const taps = [{ update: () => undefined, end }]
    for (const allMustSucceed of [true, false]) {
      const copies = stores.putCopies(id(), source().bytes, stores.all, options({ allMustSucceed, taps }))
      await assert.rejects(copies, (error) => hasKind(error, 'unsupported-media-type'))
    }
    assert.deepEqual(
      data.map((kept) => kept.size),
      [0, 0, 0],
    )
  })

  it('ends at once when it is aborted, while a store stalls', async (t) => {
    const { stores } = open(t, {
      two: (driver) => ({
        ...driver,
        write: (_, __, { signal }) =>
          new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      }),
    })
    const abort = new AbortController()
    setTimeout(() => abort.abort(new Error('enough')), 20)
    const copies = stores.putCopies(id(), source().bytes, stores.all, options({ signal: abort.signal }))
    await assert.rejects(copies, /enough/)
  })
})
