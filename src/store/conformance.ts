import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { hasKind } from '../domain/errors.ts'
import type { AttemptId, ImageId, LocationUri } from '../domain/ids.ts'
import type { ByteSource } from '../io/bytes.ts'
import type { StoreDriver, StoreFeatures } from './driver.ts'

/** A fresh and empty storage, and the driver on it. */
export interface StoreUnderTest {
  readonly driver: StoreDriver
  /** Another driver on the same storage, as another process would have; absent where storage cannot be shared. */
  again?(): Promise<StoreDriver>
  /** How data get into a store that the driver cannot write. */
  provide?(data: Buffer): Promise<LocationUri>
  /** Everything that is stored, finished or not; must be empty at the end of each test, when the images are deleted. */
  leftovers(): Promise<readonly string[]>
}

export interface StoreHarness {
  readonly name: string
  readonly features: StoreFeatures
  open(t: TestContext): Promise<StoreUnderTest>
  /** A store with room for 1 KiB, and not for 8 MiB; absent where there is no way to fill one. */
  openFull?(t: TestContext): Promise<StoreUnderTest>
  /** Locations of the driver's scheme that it cannot have written. */
  readonly foreign: readonly string[]
  /** What must not be in an error, such as passwords in the configuration. */
  readonly secrets?: readonly string[]
  /** Reasons by title, printed each time. */
  readonly skip?: Readonly<Record<string, string>>
}

const KIB = 1024
const MIB = 1024 * KIB
const LARGE = 64 * MIB

/** What every store driver owes to the service. One call in the driver's test file is the whole test. */
export function storeConformance(harness: StoreHarness): void {
  const { features } = harness
  const check = (
    title: string,
    body: (storage: StoreUnderTest, t: TestContext) => Promise<void>,
    { needs = 'write', ...how }: { needs?: keyof StoreFeatures | 'read'; open?: StoreHarness['open'] | undefined } = {},
  ) => {
    const open = 'open' in how ? how.open : harness.open
    const skip =
      harness.skip?.[title] ??
      (needs !== 'read' && !features[needs] ? `no ${needs}` : open === undefined && 'no way to set it up')
    it(title, { skip, timeout: 60_000 }, async (t) => {
      const storage = await (open ?? harness.open)(t)
      try {
        await body(discreet(storage, harness.secrets ?? []), t)
        assert.deepEqual(await storage.leftovers(), [], 'something is left behind')
      } finally {
        await storage.driver.close()
      }
    })
  }
  const whenSized = features.unsizedWrite ? [undefined, 'declared'] : ['declared']

  describe(`${harness.name} store`, () => {
    for (const size of [0, 1, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]) {
      check(`keeps ${size} bytes as they are`, async ({ driver }) => {
        for (const sized of whenSized) {
          const id = newId()
          const data = randomBytes(size)
          const { uri, size: written } = await driver.write(id, source(data), {
            ...call(),
            ...(sized === undefined ? {} : { size }),
          })
          assert.equal(written, size)
          assert.equal((await driver.stat(uri, call())).size, size)
          assert.ok((await readAll(driver, uri)).equals(data))
          await driver.delete(uri, call())
        }
      })
    }

    check('write() takes chunks of any size from one buffer that is used again', async ({ driver }) => {
      const data = randomBytes(300 * KIB)
      const body = sameBuffer(data, [1, 17, 4096, 100_000, 3])
      const { uri } = await driver.write(newId(), body, { ...call(), size: data.length })
      assert.ok((await readAll(driver, uri)).equals(data))
      await driver.delete(uri, call())
    })

    check('write() names the image in its location, with a scheme of its own', async ({ driver }) => {
      const id = newId()
      const { uri } = await write(driver, id, randomBytes(10))
      assert.ok(uri.includes(id), uri)
      assert.ok(driver.schemes.includes(uri.slice(0, uri.indexOf(':'))), uri)
      await driver.delete(uri, call())
    })

    for (const [title, kind, make, size] of [
      ['when the body ends early', 'invalid', () => source(randomBytes(MIB)), 2 * MIB],
      ['when the body is longer than declared', 'invalid', () => source(randomBytes(2 * MIB)), MIB],
      ['when the body fails midway', 'own', () => failing(randomBytes(MIB), BODY_ERROR), 2 * MIB],
    ] as const) {
      check(`write() leaves nothing behind ${title}`, async ({ driver, leftovers }) => {
        const id = newId()
        const body = tracked(make())
        await assert.rejects(driver.write(id, body.source, { ...call(), size }), (error) =>
          kind === 'own' ? error === BODY_ERROR : hasKind(error, kind),
        )
        assert.equal(body.left(), true, 'the body is not released')
        assert.deepEqual(await leftovers(), [])
        await rewrites(driver, id)
      })
    }

    check(
      'write() of unknown size leaves nothing behind when the body fails midway',
      async ({ driver, leftovers }) => {
        const id = newId()
        await assert.rejects(
          driver.write(id, failing(randomBytes(MIB), BODY_ERROR), call()),
          (error) => error === BODY_ERROR,
        )
        assert.deepEqual(await leftovers(), [])
        await rewrites(driver, id)
      },
      { needs: 'unsizedWrite' },
    )

    check('write() stops with the signal while the body says nothing, and leaves nothing behind', async (storage) => {
      const { driver, leftovers } = storage
      const id = newId()
      const stop = new AbortController()
      const body = stalling(randomBytes(100 * KIB))
      const writing = driver.write(id, body.source, { ...call(stop.signal), size: MIB })
      await body.stalled
      stop.abort(ABORTED)
      await assert.rejects(writing, (error) => error === ABORTED)
      assert.deepEqual(await leftovers(), [])
      await rewrites(driver, id)
    })

    check('write() is not undone by a signal that comes after it', async ({ driver }) => {
      const stop = new AbortController()
      const data = randomBytes(100)
      const { uri } = await driver.write(newId(), source(data), { ...call(stop.signal), size: 100 })
      stop.abort(ABORTED)
      assert.ok((await readAll(driver, uri)).equals(data))
      await driver.delete(uri, call())
    })

    check('write() of data that exists is a conflict, and the data stays', async ({ driver }) => {
      const id = newId()
      const first = randomBytes(1000)
      const { uri } = await write(driver, id, first)
      await assert.rejects(write(driver, id, randomBytes(1000)), (error) => hasKind(error, 'conflict'))
      assert.ok((await readAll(driver, uri)).equals(first))
      await driver.delete(uri, call())
    })

    check('of several writes of one image at once exactly one wins', async ({ driver, again }) => {
      const drivers = [driver, driver, (await again?.()) ?? driver, driver]
      const id = newId()
      const bodies = drivers.map(() => randomBytes(200 * KIB))
      const results = await Promise.allSettled(
        drivers.map((one, index) => write(one, id, bodies[index] ?? Buffer.alloc(0))),
      )
      const winners = results.flatMap((result, index) => (result.status === 'fulfilled' ? [{ result, index }] : []))
      assert.equal(winners.length, 1)
      for (const result of results) {
        if (result.status === 'rejected') assert.ok(hasKind(result.reason, 'conflict'), inspect(result.reason))
      }
      const [winner] = winners
      assert.ok(winner)
      const { uri } = winner.result.value
      assert.ok((await readAll(driver, uri)).equals(bodies[winner.index] ?? Buffer.alloc(0)))
      await driver.delete(uri, call())
      await drivers[2]?.close()
    })

    check('two images are written at once, each with its own data', async ({ driver }) => {
      const bodies = [randomBytes(2 * MIB + 1), randomBytes(2 * MIB + 2)]
      const written = await Promise.all(bodies.map((data) => write(driver, newId(), data)))
      for (const [index, { uri }] of written.entries()) {
        assert.ok((await readAll(driver, uri)).equals(bodies[index] ?? Buffer.alloc(0)))
        await driver.delete(uri, call())
      }
    })

    check(
      'write() is refused as too large when the medium is full, and what fits still goes in',
      async ({ driver, leftovers }) => {
        for (const size of features.unsizedWrite ? [8 * MIB, undefined] : [8 * MIB]) {
          await assert.rejects(
            driver.write(newId(), source(randomBytes(8 * MIB)), { ...call(), ...(size === undefined ? {} : { size }) }),
            (error) => hasKind(error, 'too-large'),
          )
          assert.deepEqual(await leftovers(), [])
        }
        const { uri } = await write(driver, newId(), randomBytes(KIB))
        await driver.delete(uri, call())
      },
      { open: harness.openFull },
    )

    check('sweep() removes what an unfinished write left, and the image can be written again', async (storage) => {
      const { driver, again, leftovers } = storage
      const id = newId()
      const options = { ...call(), size: MIB }
      const body = stalling(randomBytes(100 * KIB))
      const crashed = (await again?.()) ?? driver
      const writing = crashed.write(id, body.source, options)
      await body.stalled
      await driver.sweep(id, options.attempt, call())
      assert.deepEqual(await leftovers(), [])
      body.fail(BODY_ERROR)
      await assert.rejects(writing)
      await rewrites(driver, id)
      if (crashed !== driver) await crashed.close()
    })

    check('sweep() removes a finished write, and is content with nothing to remove', async ({ driver }) => {
      const id = newId()
      const options = call()
      await driver.sweep(id, options.attempt, call())
      const { uri } = await driver.write(id, source(randomBytes(10)), { ...options, size: 10 })
      await driver.sweep(id, options.attempt, call())
      await assert.rejects(driver.stat(uri, call()), isMissing)
      await driver.sweep(id, options.attempt, call())
    })

    check('sweep() leaves other images alone', async ({ driver }) => {
      const data = randomBytes(10)
      const { uri } = await write(driver, newId(), data)
      await driver.sweep(newId(), newAttempt(), call())
      assert.ok((await readAll(driver, uri)).equals(data))
      await driver.delete(uri, call())
    })

    check(
      'read() gives any range, and nothing past the end',
      async (storage) => {
        const { driver } = storage
        const size = 2 * MIB + 123
        const data = randomBytes(size)
        const uri = await provide(storage, data)
        const random = Array.from({ length: 20 }, () => {
          const offset = Math.floor(Math.random() * size)
          return [offset, Math.floor(Math.random() * (size - offset + 1))] as const
        })
        for (const [offset, length] of [
          [0, size],
          [MIB, undefined],
          [0, 0],
          [size - 1, 1],
          [size - 1, 100],
          [size, undefined],
          [size + 10, 10],
          ...random,
        ] as const) {
          const got = await readAll(driver, uri, { offset, ...(length === undefined ? {} : { length }) })
          const end = length === undefined ? undefined : offset + length
          assert.ok(got.equals(data.subarray(offset, end)), `offset ${offset}, length ${length}`)
        }
        await withdraw(storage, uri)
      },
      { needs: 'randomRead' },
    )

    check(
      'a reader may leave at any time, even before its first chunk',
      async (storage) => {
        const { driver } = storage
        const data = randomBytes(2 * MIB)
        const uri = await provide(storage, data)
        for (const chunks of [0, 1, 3]) {
          const reader = (await driver.read(uri, call()))[Symbol.asyncIterator]()
          for (let index = 0; index < chunks; index++) await reader.next()
          await reader.return?.()
          assert.equal((await reader.next()).done, true)
        }
        assert.ok((await readAll(driver, uri)).equals(data))
        await withdraw(storage, uri)
      },
      { needs: 'read' },
    )

    check(
      'two readers at once get the whole data each',
      async (storage) => {
        const { driver } = storage
        const data = randomBytes(3 * MIB)
        const uri = await provide(storage, data)
        for (const got of await Promise.all([readAll(driver, uri), readAll(driver, uri)])) assert.ok(got.equals(data))
        await withdraw(storage, uri)
      },
      { needs: 'read' },
    )

    check('data that is deleted while it is read comes right or ends with an error', async ({ driver }) => {
      const data = randomBytes(3 * MIB)
      const { uri } = await write(driver, newId(), data)
      const reader = (await driver.read(uri, call()))[Symbol.asyncIterator]()
      const first = Buffer.from((await reader.next()).value ?? '')
      await driver.delete(uri, call()).catch(async (error: unknown) => {
        assert.ok(hasKind(error, 'conflict'), inspect(error))
        await reader.return?.()
        await driver.delete(uri, call())
      })
      const rest = await collect({ [Symbol.asyncIterator]: () => reader }).catch((error: unknown) => error)
      if (Buffer.isBuffer(rest)) {
        const got = Buffer.concat([first, rest])
        assert.ok(got.equals(data.subarray(0, got.length)))
      }
    })

    check(
      'read() stops with the signal, and the driver stays usable',
      async (storage) => {
        const { driver } = storage
        const data = randomBytes(3 * MIB)
        const uri = await provide(storage, data)
        const stop = new AbortController()
        const reader = (await driver.read(uri, call(stop.signal)))[Symbol.asyncIterator]()
        await reader.next()
        stop.abort(ABORTED)
        await assert.rejects(collect({ [Symbol.asyncIterator]: () => reader }), (error) => error === ABORTED)
        assert.ok((await readAll(driver, uri)).equals(data))
        await withdraw(storage, uri)
      },
      { needs: 'read' },
    )

    check('what is not there is not found, and deleting twice is noticed', async ({ driver }) => {
      const { uri } = await write(driver, newId(), randomBytes(10))
      await driver.delete(uri, call())
      await assert.rejects(driver.delete(uri, call()), isMissing)
      await assert.rejects(driver.stat(uri, call()), isMissing)
      await assert.rejects(driver.read(uri, call()), isMissing)
    })

    check(
      'a location of another kind is invalid',
      async ({ driver }) => {
        for (const uri of ['', 'nonsense', 'other://place', ...harness.foreign] as LocationUri[]) {
          for (const method of [driver.read, driver.stat, driver.delete]) {
            await assert.rejects(method(uri, call()), (error) => hasKind(error, 'invalid', 'not-found'), uri)
          }
        }
      },
      { needs: 'read' },
    )

    check(
      'every method rejects at once when its signal is aborted already',
      async (storage) => {
        const { driver } = storage
        const uri = await provide(storage, randomBytes(10))
        for (const attempt of everyMethod(driver, uri, AbortSignal.abort(ABORTED))) {
          await assert.rejects(attempt, (error) => error === ABORTED)
        }
        await withdraw(storage, uri)
      },
      { needs: 'read' },
    )

    check('a closed driver ends what is open and is unavailable from then on', async ({ driver, leftovers }) => {
      const { uri } = await write(driver, newId(), randomBytes(3 * MIB))
      const reader = (await driver.read(uri, call()))[Symbol.asyncIterator]()
      await reader.next()
      const body = stalling(randomBytes(100 * KIB))
      const writing = driver.write(newId(), body.source, { ...call(), size: MIB })
      const written = assert.rejects(writing, (error) => hasKind(error, 'unavailable'))
      await body.stalled
      await driver.sweep(imageIn(uri), newAttempt(), call())
      await driver.close()
      await written
      await assert.rejects(collect({ [Symbol.asyncIterator]: () => reader }), (error) => hasKind(error, 'unavailable'))
      for (const attempt of everyMethod(driver, uri, call().signal)) {
        await assert.rejects(attempt, (error) => hasKind(error, 'unavailable'))
      }
      await driver.close()
      assert.deepEqual(await leftovers(), [])
    })

    check(
      'a closed driver ends what is being read',
      async (storage) => {
        const { driver } = storage
        const uri = await provide(storage, randomBytes(3 * MIB))
        const reader = (await driver.read(uri, call()))[Symbol.asyncIterator]()
        await reader.next()
        await withdraw(storage, uri).catch((error: unknown) => assert.ok(hasKind(error, 'conflict')))
        await driver.close()
        await assert.rejects(collect({ [Symbol.asyncIterator]: () => reader }), (error) =>
          hasKind(error, 'unavailable'),
        )
        for (const attempt of everyMethod(driver, uri, call().signal))
          await assert.rejects(attempt, (error) => hasKind(error, 'unavailable'))
      },
      { needs: 'read' },
    )

    check('two drivers on the same storage see the same data', async ({ driver, again }, t) => {
      if (again === undefined) return t.skip('its storage is its own')
      const other = await again()
      const data = randomBytes(1000)
      const { uri } = await write(driver, newId(), data)
      assert.ok((await readAll(other, uri)).equals(data))
      await other.delete(uri, call())
      await assert.rejects(driver.stat(uri, call()), isMissing)
      await other.close()
    })

    check(
      'the driver is what the harness says',
      async ({ driver }) => {
        assert.deepEqual(driver.features, features)
        if (driver.freeBytes) assert.ok((await driver.freeBytes(call())) >= 0)
        if (driver.properties) assert.equal(typeof driver.properties(), 'object')
      },
      { needs: 'read' },
    )

    check('64 MiB go in and out in constant memory', async ({ driver }) => {
      const chunk = randomBytes(MIB)
      const before = process.memoryUsage.rss()
      let peak = 0
      const sample = () => {
        peak = Math.max(peak, process.memoryUsage.rss() - before)
      }
      const body = async function* (): ByteSource {
        for (let sent = 0; sent < LARGE; sent += chunk.length) {
          sample()
          yield chunk
        }
      }
      const { uri } = await driver.write(newId(), body(), { ...call(), size: LARGE })
      let got = 0
      for await (const { length } of await driver.read(uri, call())) {
        got += length
        sample()
      }
      assert.equal(got, LARGE)
      assert.ok(peak < LARGE / 2, `memory grew by ${Math.round(peak / MIB)} MiB`)
      await driver.delete(uri, call())
    })
  })
}

const ABORTED = new Error('aborted by the test')
const BODY_ERROR = new Error('the body failed')

const isMissing = (error: unknown) => hasKind(error, 'not-found')
const newId = () => randomUUID() as ImageId
const newAttempt = () => randomUUID() as AttemptId
const call = (signal: AbortSignal = new AbortController().signal) => ({ signal, attempt: newAttempt() })
const imageIn = (uri: LocationUri) => (/[0-9a-f-]{36}/.exec(uri)?.[0] ?? '') as ImageId

const write = (driver: StoreDriver, id: ImageId, data: Buffer) =>
  driver.write(id, source(data), { ...call(), size: data.length })

const readAll = async (driver: StoreDriver, uri: LocationUri, range: { offset?: number; length?: number } = {}) =>
  collect(await driver.read(uri, { ...call(), ...range }))

async function collect(bytes: ByteSource): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of bytes) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** Data that are there, however they got in. */
const provide = async (storage: StoreUnderTest, data: Buffer): Promise<LocationUri> =>
  (await storage.provide?.(data)) ?? (await write(storage.driver, newId(), data)).uri

const withdraw = async ({ driver }: StoreUnderTest, uri: LocationUri): Promise<void> => {
  if (driver.features.write) await driver.delete(uri, call())
}

/** That nothing of a failed write is in the way of another one. */
async function rewrites(driver: StoreDriver, id: ImageId): Promise<void> {
  const data = randomBytes(1000)
  const { uri } = await write(driver, id, data)
  assert.ok((await readAll(driver, uri)).equals(data))
  await driver.delete(uri, call())
}

function everyMethod(driver: StoreDriver, uri: LocationUri, signal: AbortSignal): readonly (() => Promise<unknown>)[] {
  const options = call(signal)
  return [
    () => driver.write(newId(), source(randomBytes(10)), { ...options, size: 10 }),
    () => driver.read(uri, options),
    () => driver.stat(uri, options),
    () => driver.delete(uri, options),
    () => driver.sweep(newId(), options.attempt, options),
    ...(driver.freeBytes === undefined ? [] : [async () => driver.freeBytes?.(options)]),
  ]
}

/** The same storage, where no error may show one of the secrets. */
function discreet(storage: StoreUnderTest, secrets: readonly string[]): StoreUnderTest {
  const watched =
    <Args extends unknown[], Result>(method: (...args: Args) => Promise<Result>) =>
    (...args: Args): Promise<Result> =>
      method(...args).catch((error: unknown) => {
        for (const secret of secrets)
          assert.ok(!inspect(error, { depth: 10 }).includes(secret), 'an error shows a secret')
        throw error
      })
  const { driver } = storage
  return {
    ...storage,
    driver: {
      ...driver,
      write: watched(driver.write),
      read: watched(driver.read),
      stat: watched(driver.stat),
      delete: watched(driver.delete),
      sweep: watched(driver.sweep),
    },
  }
}

// Bodies

async function* source(data: Buffer): ByteSource {
  for (let from = 0; from < data.length; from += 256 * KIB) yield data.subarray(from, from + 256 * KIB)
}

/** Chunks of the given sizes in turn, all in one buffer. */
async function* sameBuffer(data: Buffer, sizes: readonly number[]): ByteSource {
  const buffer = Buffer.alloc(Math.max(...sizes))
  for (let from = 0, turn = 0; from < data.length; turn++) {
    const length = data.copy(buffer, 0, from, from + (sizes[turn % sizes.length] ?? 1))
    yield buffer.subarray(0, length)
    buffer.fill(0)
    from += length
  }
}

async function* failing(data: Buffer, error: Error): ByteSource {
  yield* source(data)
  throw error
}

/** Says whether whoever read it has left it, or read it to its end. */
function tracked(bytes: ByteSource): { readonly source: ByteSource; left(): boolean } {
  let left = false
  const watch = async function* (): ByteSource {
    try {
      yield* bytes
    } finally {
      left = true
    }
  }
  return { source: watch(), left: () => left }
}

/** Gives its data and then says nothing more until it is told to fail or left. */
function stalling(data: Buffer): {
  readonly source: ByteSource
  readonly stalled: Promise<void>
  fail(error: Error): void
} {
  const stalled = deferred<void>()
  const more = deferred<IteratorResult<Buffer>>()
  let given = false
  return {
    stalled: stalled.promise,
    fail: more.reject,
    source: {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          if (given) {
            stalled.resolve()
            return more.promise
          }
          given = true
          return { value: data, done: false }
        },
        return: async () => {
          more.resolve({ value: undefined, done: true })
          return { value: undefined, done: true }
        },
      }),
    },
  }
}

function deferred<T>() {
  let resolve: (value: T) => void = () => undefined
  let reject: (error: Error) => void = () => undefined
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
