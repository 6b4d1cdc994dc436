import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { hasKind, ServiceError } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri, StoreId } from '../domain/ids.ts'
import type { Location } from '../domain/image.ts'
import type { ByteSource } from '../io/bytes.ts'
import { openPump } from '../io/pump.ts'
import type { StoreDriver } from './driver.ts'
import { openMemoryDriver } from './drivers/memory.ts'
import { openStore, redact } from './store.ts'

const signal = new AbortController().signal
const newId = () => randomUUID() as ImageId
const options = (more: object = {}) => ({
  attempt: randomUUID() as AttemptId,
  signal,
  hashAlgorithm: 'sha512',
  ...more,
})
const at = (uri: string): Location => ({ uri: uri as LocationUri, store: 'fast' as StoreId, metadata: {} })

async function* source(...chunks: readonly Buffer[]): ByteSource {
  yield* chunks
}
async function collect(bytes: ByteSource): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of bytes) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

function open(t: TestContext, change: Partial<StoreDriver> = {}, settings: { weight?: number; named?: boolean } = {}) {
  const pump = openPump({ threads: 2, memoryMiB: 8 })
  t.after(() => pump.close())
  const data = new Map<string, Buffer>()
  const driver = openMemoryDriver({ data })
  return { store: openStore('fast' as StoreId, { ...driver, ...change }, { pump, ...settings }), data, driver }
}

describe('store', () => {
  it('put() says where the data is, how much it is and what its digests are', async (t) => {
    const { store } = open(t)
    const body = randomBytes(3_000_000)
    const id = newId()
    const stored = await store.put(id, source(body), options({ size: body.length, hashAlgorithm: 'sha256' }))
    assert.deepEqual(stored, {
      location: { uri: `memory://${id}`, store: 'fast', metadata: {} },
      size: body.length,
      checksum: createHash('md5').update(body).digest('hex'),
      osHashAlgo: 'sha256',
      osHashValue: createHash('sha256').update(body).digest('hex'),
    })
    assert.ok((await collect(await store.open(stored.location, undefined, signal))).equals(body))
    assert.deepEqual(await store.stat(stored.location, signal), { size: body.length })
  })

  it('put() does not name the store where there is only one', async (t) => {
    const { store } = open(t, {}, { named: false })
    const { location } = await store.put(newId(), source(Buffer.from('x')), options())
    assert.equal(location.store, undefined)
  })

  it('put() is invalid when the body is not as long as said, and keeps nothing', async (t) => {
    const { store, data } = open(t)
    for (const size of [9, 11]) {
      const putting = store.put(newId(), source(randomBytes(10)), options({ size }))
      await assert.rejects(putting, (error) => hasKind(error, 'invalid'), `${size}`)
    }
    assert.equal(data.size, 0)
  })

  it('put() keeps nothing that a tap refuses, even at the end', async (t) => {
    const { store, data } = open(t)
    const refused = new ServiceError('unsupported-media-type', 'No such image')
    const refuse = () => {
      throw refused
    }
    for (const tap of [{ update: refuse }, { update: () => undefined, end: refuse }]) {
      const putting = store.put(newId(), source(randomBytes(10)), options({ taps: [tap] }))
      await assert.rejects(putting, (error) => hasKind(error, 'unsupported-media-type'))
    }
    assert.equal(data.size, 0)
  })

  it('put() passes the error of the body on as it is', async (t) => {
    const { store } = open(t)
    const broken = new Error('broken')
    const body = async function* (): ByteSource {
      yield Buffer.from('x')
      throw broken
    }
    await assert.rejects(store.put(newId(), body(), options()), (error) => error === broken)
  })

  it('put() removes the data when the driver wrote another number of bytes than it got', async (t) => {
    const { driver, store, data } = open(t, {
      write: async (id, body, given) => ({ ...(await driver.write(id, body, given)), size: 5 }),
    })
    await assert.rejects(store.put(newId(), source(randomBytes(10)), options()), (error) => hasKind(error, 'internal'))
    assert.equal(data.size, 0)
  })

  it('put() is refused for an unknown hash, by a read-only store, and without a size where one is needed', async (t) => {
    const body = () => source(Buffer.from('x'))
    await assert.rejects(open(t).store.put(newId(), body(), options({ hashAlgorithm: 'rot13' })), (error) =>
      hasKind(error, 'invalid'),
    )
    const readOnly = open(t, { features: { write: false, randomRead: true, unsizedWrite: false } }).store
    assert.equal(readOnly.readOnly, true)
    await assert.rejects(readOnly.put(newId(), body(), options()), (error) => hasKind(error, 'gone'))
    const sized = open(t, { features: { write: true, randomRead: true, unsizedWrite: false } }).store
    await assert.rejects(sized.put(newId(), body(), options()), (error) => hasKind(error, 'invalid'))
  })

  for (const randomRead of [true, false]) {
    it(`open() gives a range ${randomRead ? 'read by the driver' : 'of a driver that reads from the start only'}`, async (t) => {
      const reads: object[] = []
      const { store, driver } = open(t, {
        features: { write: true, randomRead, unsizedWrite: true },
        read: async (uri, given) => {
          const { signal: _, ...range } = given
          reads.push(range)
          return driver.read(uri, given)
        },
      })
      const body = randomBytes(200_000)
      const { location } = await store.put(newId(), source(body), options())
      const range = { offset: 70_000, length: 100_000 }
      assert.ok((await collect(await store.open(location, range, signal))).equals(body.subarray(70_000, 170_000)))
      assert.deepEqual(reads, [randomRead ? range : {}])
    })

    it(`open() of more than there is ends as unavailable, ${randomRead ? 'with' : 'without'} random reads`, async (t) => {
      const { store } = open(t, { features: { write: true, randomRead, unsizedWrite: true } })
      const { location } = await store.put(newId(), source(randomBytes(10)), options())
      const bytes = await store.open(location, { offset: 0, length: 11 }, signal)
      await assert.rejects(collect(bytes), (error) => hasKind(error, 'unavailable'))
    })
  }

  it('open() throws not-found before it resolves', async (t) => {
    await assert.rejects(open(t).store.open(at('memory://nothing'), undefined, signal), (error) =>
      hasKind(error, 'not-found'),
    )
  })

  it('discard() removes what was put, and may be repeated', async (t) => {
    const { store, data } = open(t)
    const stored = await store.put(newId(), source(Buffer.from('x')), options())
    await store.discard(stored)
    assert.equal(data.size, 0)
    await store.discard(stored)
  })

  it('tells the operator, and not the client, about which store and location an error is, without credentials', async (t) => {
    const { store } = open(t, {
      schemes: ['swift+https'],
      stat: async () => {
        throw new ServiceError('unavailable', 'Cannot reach it', { detail: { region: 'one' }, transient: true })
      },
    })
    const failing = store.stat(at('swift+https://user:p@ss:word@host/container/object?key=secret'), signal)
    await assert.rejects(failing, (error) => {
      assert.ok(error instanceof ServiceError)
      assert.equal(error.message, 'Cannot reach it')
      assert.equal(error.transient, true)
      assert.deepEqual(error.detail, {
        store: 'fast',
        uri: 'swift+https://***@host/container/object?***',
        region: 'one',
      })
      return true
    })
  })

  it('is invalid for a location with a scheme of another store', async (t) => {
    const { store } = open(t)
    for (const uri of ['file:///etc/passwd', 'memory', '', 'memoryx://x']) {
      for (const call of [
        () => store.open(at(uri), undefined, signal),
        () => store.stat(at(uri), signal),
        () => store.delete(at(uri), signal),
      ]) {
        await assert.rejects(call, (error) => hasKind(error, 'invalid'), uri)
      }
    }
  })

  it('shows a location without what may be secret', () => {
    assert.equal(redact('file:///images/1' as LocationUri), 'file:///images/1')
    assert.equal(redact('s3://key:sec/ret@host/bucket/1' as LocationUri), 's3://***@host/bucket/1')
    assert.equal(redact('https://host/1?X-Signature=a@b' as LocationUri), 'https://host/1?***')
  })
})
