import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { describe, it, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import type { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { hasKind } from '../domain/errors.ts'
import type { ByteSource } from './bytes.ts'
import { openPump, type Pump } from './pump.ts'

const KIB = 1024
const MIB = 1024 * KIB
const DIGESTS = ['md5', 'sha512']
const BROKEN = new Error('broken')

const open = (t: TestContext, options: Parameters<typeof openPump>[0] = {}): Pump => {
  const pump = openPump(options)
  t.after(() => pump.close())
  return pump
}
const plain = () => ({ digests: DIGESTS, signal: new AbortController().signal })
const hex = (algorithm: string, data: Uint8Array) => createHash(algorithm).update(data).digest('hex')

async function* source(...chunks: readonly Uint8Array[]): ByteSource {
  for (const chunk of chunks) yield Buffer.from(chunk)
}
async function collect(body: ByteSource): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of body) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}
/** The chunks, then silence until the reader leaves. */
function silentAfter(...chunks: readonly Buffer[]) {
  const state = { left: false }
  let leave: (result: IteratorResult<Buffer>) => void = () => undefined
  const rest = [...chunks]
  const bytes: ByteSource = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        const value = rest.shift()
        return value === undefined
          ? new Promise((resolve) => {
              leave = resolve
            })
          : Promise.resolve({ value, done: false })
      },
      return: async () => {
        state.left = true
        leave({ value: undefined, done: true })
        return { value: undefined, done: true }
      },
    }),
  }
  return { bytes, state }
}

describe('pump', () => {
  it('hands on, counts, taps and hashes the same bytes, however they are cut', async (t) => {
    const pump = open(t)
    const sizes = fc.array(fc.oneof(fc.nat(100), fc.nat(100_000), fc.nat(3_000_000)), { maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(sizes, async (lengths) => {
        const chunks = lengths.map((length) => randomBytes(length))
        const all = Buffer.concat(chunks)
        const tapped: Buffer[] = []
        let ended = 0
        const taps = [
          { update: (chunk: Buffer) => tapped.push(Buffer.from(chunk)) },
          { update: () => undefined, end: () => ended++ },
        ]
        const copied = await pump.copy(source(...chunks), collect, { ...plain(), taps: taps as never })
        assert.ok(copied.result.equals(all))
        assert.ok(Buffer.concat(tapped).equals(all))
        assert.equal(ended, 1)
        assert.equal(copied.size, all.length)
        assert.deepEqual(copied.digests, [hex('md5', all), hex('sha512', all)])
      }),
      { numRuns: 40 },
    )
  })

  it('takes a source that fills one buffer again and again', async (t) => {
    const data = randomBytes(5 * MIB + 1)
    const reused = async function* (): ByteSource {
      const buffer = Buffer.alloc(60_000)
      for (let from = 0; from < data.length; from += buffer.length) {
        yield buffer.subarray(0, data.copy(buffer, 0, from))
        buffer.fill(0)
      }
    }
    const { result, digests } = await open(t).copy(reused(), collect, plain())
    assert.ok(result.equals(data))
    assert.equal(digests[0], hex('md5', data))
  })

  it('knows the hash functions that hashlib and OpenSSL name', async (t) => {
    const pump = open(t)
    const data = randomBytes(1000)
    for (const [name, ours] of [
      ['sha1', 'sha1'],
      ['sha256', 'sha256'],
      ['sha3_512', 'sha3-512'],
      ['blake2b', 'blake2b512'],
    ] as const) {
      const { digests } = await pump.copy(source(data), collect, { ...plain(), digests: [name] })
      assert.deepEqual(digests, [hex(ours, data)])
    }
  })

  it('refuses an unknown hash function before it reads anything', async (t) => {
    const { bytes, state } = silentAfter()
    const copying = async () => open(t).copy(bytes, collect, { ...plain(), digests: ['md5', 'rot13'] })
    await assert.rejects(copying, (error) => hasKind(error, 'invalid'))
    assert.equal(state.left, false)
  })

  it('hands on what has come when nothing is under way, without waiting for more', async (t) => {
    const { bytes } = silentAfter(randomBytes(64 * KIB))
    const stop = new AbortController()
    const sink = async (body: ByteSource) => {
      for await (const chunk of body) {
        assert.equal(chunk.length, 64 * KIB)
        stop.abort(BROKEN)
      }
    }
    await assert.rejects(open(t).copy(bytes, sink, { ...plain(), signal: stop.signal }), (error) => error === BROKEN)
  })

  it('gathers the small chunks of a quick source to batches of up to 1 MiB', async (t) => {
    const chunks = Array.from({ length: 640 }, () => randomBytes(64 * KIB))
    let batches = 0
    let largest = 0
    const sink = async (body: ByteSource) => {
      for await (const { length } of body) {
        batches++
        largest = Math.max(largest, length)
      }
    }
    await open(t).copy(source(...chunks), sink, plain())
    assert.equal(largest, MIB)
    assert.ok(batches < 200, `${batches} batches`)
  })

  it('does not run ahead of a sink by more than a few MiB', async (t) => {
    let given = 0
    const endless = async function* (): ByteSource {
      for (;;) {
        given += 64 * KIB
        yield Buffer.alloc(64 * KIB)
      }
    }
    const pump = open(t)
    const stop = new AbortController()
    const copying = pump.copy(
      endless(),
      async (body) => {
        const reader = body[Symbol.asyncIterator]()
        await reader.next()
        // Other copies come and go while this sink keeps its first chunk; what was going to be read has been read then.
        for (let turn = 0; turn < 20; turn++) await pump.copy(source(randomBytes(MIB)), collect, plain())
        assert.ok(given <= 5 * MIB, `${given / MIB} MiB were read`)
        stop.abort(BROKEN)
        await reader.next()
      },
      { ...plain(), signal: stop.signal },
    )
    await assert.rejects(copying, (error) => error === BROKEN)
  })

  it('keeps no shared memory for sources that say nothing', async (t) => {
    const pump = open(t, { memoryMiB: 1 })
    const stop = new AbortController()
    const silent = Array.from({ length: 20 }, () =>
      pump.copy(silentAfter(randomBytes(100), randomBytes(100)).bytes, collect, { ...plain(), signal: stop.signal }),
    )
    const data = randomBytes(3 * MIB)
    assert.ok((await pump.copy(source(data), collect, plain())).result.equals(data))
    stop.abort(BROKEN)
    for (const copying of silent) await assert.rejects(copying, (error) => error === BROKEN)
  })

  it('serves many at once with little memory', async (t) => {
    const pump = open(t, { memoryMiB: 2 })
    const bodies = Array.from({ length: 12 }, (_, index) => randomBytes(MIB + index * 100_000))
    const copied = await Promise.all(bodies.map((data) => pump.copy(source(data), collect, plain())))
    for (const [index, { result, digests }] of copied.entries()) {
      const data = bodies[index] ?? Buffer.alloc(0)
      assert.ok(result.equals(data))
      assert.equal(digests[0], hex('md5', data))
    }
  })

  it('leaves memory to others when what one lane writes to stands still', async (t) => {
    const pump = open(t, { memoryMiB: 8 })
    let thaw = () => {}
    const frozen = new Promise<void>((resolve) => {
      thaw = resolve
    })
    let reached = 0
    const stalled = async (body: ByteSource) => {
      for await (const _chunk of body) {
        reached += 1
        await frozen
      }
    }
    const data = randomBytes(3 * MIB)
    const waiting = Array.from({ length: 20 }, () => pump.copy(source(data), stalled, { ...plain(), lane: 'slow' }))
    while (reached < 2) await new Promise((resolve) => setImmediate(resolve))
    for (const lane of ['fast', 'other', undefined]) {
      assert.ok((await pump.copy(source(data), collect, { ...plain(), lane })).result.equals(data))
    }
    thaw()
    for (const { size } of await Promise.all(waiting)) assert.equal(size, data.length)
  })

  describe('when something fails', () => {
    const failingSource = async function* (): ByteSource {
      yield randomBytes(2 * MIB)
      throw BROKEN
    }
    const failingTap = { update: () => assert.fail(BROKEN) }
    const failingEnd = {
      update: () => undefined,
      end: () => {
        throw BROKEN
      },
    }
    const failingSink = async (body: ByteSource) => {
      for await (const _chunk of body) throw BROKEN
    }
    /** Fails while some bytes wait for it and others are being gathered. */
    const lateSink = async (body: ByteSource) => {
      for await (const _chunk of body) {
        for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
        throw BROKEN
      }
    }
    const data = () => source(randomBytes(3 * MIB))
    const unfinished = () => silentAfter(randomBytes(2.5 * MIB)).bytes

    for (const [what, body, sink, taps] of [
      ['the source', failingSource, collect, []],
      ['a tap', data, collect, [failingTap]],
      ['a tap at the end', data, collect, [failingEnd]],
      ['the sink', data, failingSink, []],
      ['a sink that lags behind', unfinished, lateSink, []],
    ] as const) {
      it(`rejects with the error of ${what}, and gives all memory back`, { timeout: 20_000 }, async (t) => {
        const pump = open(t, { memoryMiB: 4 })
        for (let turn = 0; turn < 10; turn++) {
          await assert.rejects(pump.copy<unknown>(body(), sink, { ...plain(), taps }), (error) => error === BROKEN)
        }
        // Each copy holds one of the four slots until the one that it begins is through.
        const holdSlots = async (count: number): Promise<void> => {
          if (count === 0) return
          const sink = async (bytes: ByteSource) => {
            for await (const _chunk of bytes) await holdSlots(count - 1)
          }
          await pump.copy(source(randomBytes(MIB)), sink, plain())
        }
        await holdSlots(4)
      })
    }

    it('tells the sink, and settles only after it has', async (t) => {
      const order: string[] = []
      const sink = async (body: ByteSource) => {
        await assert.rejects(collect(body), (error) => error === BROKEN)
        await new Promise((resolve) => setImmediate(resolve))
        order.push('sink')
        throw BROKEN
      }
      await open(t)
        .copy(failingSource(), sink, plain())
        .catch(() => order.push('copy'))
      assert.deepEqual(order, ['sink', 'copy'])
    })

    it('leaves a silent source when the sink fails', async (t) => {
      const { bytes, state } = silentAfter(randomBytes(64 * KIB))
      await assert.rejects(open(t).copy(bytes, failingSink, plain()), (error) => error === BROKEN)
      assert.equal(state.left, true)
    })

    it('stops with the signal while the source says nothing', async (t) => {
      const { bytes, state } = silentAfter()
      const stop = new AbortController()
      const copying = open(t).copy(bytes, collect, { ...plain(), signal: stop.signal })
      stop.abort(BROKEN)
      await assert.rejects(copying, (error) => error === BROKEN)
      assert.equal(state.left, true)
    })

    it('does not begin with an aborted signal', async (t) => {
      const copying = open(t).copy(data(), collect, { ...plain(), signal: AbortSignal.abort(BROKEN) })
      await assert.rejects(copying, (error) => error === BROKEN)
    })

    it('is an internal error when the sink is content with less than everything', async (t) => {
      const copying = open(t).copy(data(), async () => undefined, plain())
      await assert.rejects(copying, (error) => hasKind(error, 'internal'))
    })

    it('does not destroy the stream that it refuses, and notices one that breaks off', async (t) => {
      const pump = open(t)
      const refused = new PassThrough()
      refused.write(randomBytes(64 * KIB))
      await assert.rejects(pump.copy(refused, failingSink, plain()), (error) => error === BROKEN)
      assert.equal(refused.destroyed, false)

      const broken = new PassThrough()
      broken.write(randomBytes(64 * KIB))
      const copying = pump.copy(broken, collect, plain())
      broken.destroy()
      await assert.rejects(copying, (error) => hasKind(error, 'invalid'))
    })
  })

  describe('hashing threads', () => {
    const withWorkers = (t: TestContext) => {
      const workers: Worker[] = []
      const seen = (worker: Worker) => workers.push(worker)
      process.on('worker', seen)
      t.after(() => process.off('worker', seen))
      return workers
    }

    it('start with the first copy, one for each hash, and are shared by all', async (t) => {
      const workers = withWorkers(t)
      const pump = open(t, { threads: 2 })
      assert.equal(workers.length, 0)
      await Promise.all(Array.from({ length: 5 }, () => pump.copy(source(randomBytes(MIB)), collect, plain())))
      assert.equal(workers.length, 2)
    })

    it('that die fail what they hash, before the sink learns of the end, and are replaced', async (t) => {
      const workers = withWorkers(t)
      const pump = open(t, { threads: 2, memoryMiB: 4 })
      let seenBySink: unknown
      const sink = async (body: ByteSource) => {
        let victim: Worker | undefined
        try {
          for await (const _chunk of body) {
            if (victim === undefined) {
              victim = workers[0]
              await victim?.terminate()
            }
          }
        } catch (error) {
          seenBySink = error
          throw error
        }
      }
      const copying = pump.copy(source(...Array.from({ length: 8 }, () => randomBytes(MIB))), sink, plain())
      await assert.rejects(copying, (error) => hasKind(error, 'internal') && error === seenBySink)
      const data = randomBytes(8 * MIB)
      assert.equal((await pump.copy(source(data), collect, plain())).digests[0], hex('md5', data))
      assert.equal(workers.length, 3)
    })

    it('make what is under way unavailable when the pump closes', async (t) => {
      const pump = open(t)
      const copying = pump.copy(
        source(randomBytes(MIB)),
        async (body) => {
          await pump.close()
          return collect(body)
        },
        plain(),
      )
      await assert.rejects(copying, (error) => hasKind(error, 'unavailable'))
      await assert.rejects(
        async () => pump.copy(source(), collect, plain()),
        (error) => hasKind(error, 'unavailable'),
      )
    })

    it('do not keep the process alive', async () => {
      const script = `
        import { openPump } from ${JSON.stringify(join(import.meta.dirname, 'pump.ts'))}
        const sink = async (body) => { for await (const chunk of body); }
        const source = async function* () { yield Buffer.alloc(1000) }
        const options = { digests: ['md5', 'sha512'], signal: new AbortController().signal }
        const { size } = await openPump().copy(source(), sink, options)
        console.log(size)`
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
        timeout: 30_000,
      })
      assert.equal(stdout.trim(), '1000')
    })
  })
})
