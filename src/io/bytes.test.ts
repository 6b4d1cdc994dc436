import assert from 'node:assert/strict'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough } from 'node:stream'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type ErrorKind, hasKind } from '../domain/errors.ts'
import { abortable, type ByteSource, contentRange, exactLength, fromReadable, requestedRange, slice } from './bytes.ts'

const kind = (wanted: ErrorKind) => (error: unknown) => hasKind(error, wanted)

async function collect(source: ByteSource): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of source) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** Chunks as given, and whether the reader left before the end. */
function tracked(chunks: readonly Uint8Array[]) {
  const state = { released: 0, given: 0 }
  const source: ByteSource = {
    [Symbol.asyncIterator]: () => {
      const rest = chunks.map((chunk) => Buffer.from(chunk))
      return {
        next: async () => {
          const value = rest.shift()
          if (value === undefined) return { value: undefined, done: true }
          state.given++
          return { value, done: false }
        },
        return: async () => {
          state.released++
          return { value: undefined, done: true }
        },
      }
    },
  }
  return { source, state }
}

const anyChunks = fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 10 })

describe('slice()', () => {
  it('is what subarray() is, however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(anyChunks, fc.nat(250), fc.nat(250), async (chunks, offset, length) => {
        const all = Buffer.concat(chunks)
        assert.deepEqual(
          await collect(slice(tracked(chunks).source, { offset, length })),
          all.subarray(offset, offset + length),
        )
      }),
    )
  })

  it('leaves the source once it has its bytes, and reads nothing for an empty range', async () => {
    const { source, state } = tracked([Buffer.from('one'), Buffer.from('two'), Buffer.from('three')])
    assert.equal((await collect(slice(source, { offset: 1, length: 2 }))).toString(), 'ne')
    assert.deepEqual(state, { released: 1, given: 1 })
  })

  it('releases the source when it is left before the first chunk', async () => {
    const { source, state } = tracked([Buffer.from('one')])
    await slice(source, { offset: 0, length: 1 })[Symbol.asyncIterator]().return?.()
    assert.deepEqual(state, { released: 1, given: 0 })
  })
})

describe('exactLength()', () => {
  it('gives the bytes when they are as many as said, and is invalid otherwise', async () => {
    await fc.assert(
      fc.asyncProperty(anyChunks, fc.integer({ min: -3, max: 3 }), async (chunks, surplus) => {
        const all = Buffer.concat(chunks)
        const size = Math.max(0, all.length + surplus)
        const reading = collect(exactLength(tracked(chunks).source, size))
        if (size === all.length) assert.deepEqual(await reading, all)
        else await assert.rejects(reading, kind('invalid'))
      }),
    )
  })

  it('never hands on more than said, and leaves the source', async () => {
    const { source, state } = tracked([Buffer.from('one'), Buffer.from('two'), Buffer.from('three')])
    const got: string[] = []
    await assert.rejects(async () => {
      for await (const chunk of exactLength(source, 4, 'unavailable')) got.push(chunk.toString())
    }, kind('unavailable'))
    assert.deepEqual(got, ['one'])
    assert.equal(state.released, 1)
  })
})

describe('abortable()', () => {
  it('rejects with the reason while the source says nothing, and leaves the source', async () => {
    const stop = new AbortController()
    let left = false
    const silent: ByteSource = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => undefined),
        return: async () => {
          left = true
          return { value: undefined, done: true }
        },
      }),
    }
    const reading = collect(abortable(silent, stop.signal))
    const reason = new Error('enough')
    stop.abort(reason)
    await assert.rejects(reading, (error) => error === reason)
    assert.equal(left, true)
  })

  it('gives everything when nobody aborts', async () => {
    const { source } = tracked([Buffer.from('one'), Buffer.from('two')])
    assert.equal((await collect(abortable(source, new AbortController().signal))).toString(), 'onetwo')
  })
})

describe('fromReadable()', () => {
  it('gives what is written into the stream', async () => {
    await fc.assert(
      fc.asyncProperty(anyChunks, async (chunks) => {
        const stream = new PassThrough()
        const reading = collect(fromReadable(stream))
        for (const chunk of chunks) stream.write(Buffer.from(chunk))
        stream.end()
        assert.deepEqual(await reading, Buffer.concat(chunks))
      }),
      { numRuns: 30 },
    )
  })

  it('rejects with the error of the stream', async () => {
    const stream = new PassThrough()
    const reading = collect(fromReadable(stream))
    const error = new Error('broken')
    stream.destroy(error)
    await assert.rejects(reading, (seen) => seen === error)
  })

  it('is invalid when the stream is closed before its end, also before the first step', async () => {
    const stream = new PassThrough()
    const source = fromReadable(stream)
    stream.destroy()
    await assert.rejects(collect(source), kind('invalid'))
  })

  it('does not destroy a stream that is left early', async () => {
    const stream = new PassThrough()
    stream.write('one')
    for await (const chunk of fromReadable(stream)) {
      assert.equal(chunk.toString(), 'one')
      break
    }
    assert.equal(stream.destroyed, false)
    stream.destroy(new Error('late errors are nobody’s business'))
  })

  it('notices a client that vanishes in the middle of its upload, and lets a refused one be answered', async () => {
    const outcomes: unknown[] = []
    const server = createServer(async (req, res) => {
      const body = fromReadable(req)
      if (req.url === '/refused') {
        for await (const _chunk of body) break
        res.writeHead(413, { connection: 'close' }).end()
        return
      }
      await collect(body).catch((error: unknown) => outcomes.push(error))
      server.close()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const options = { port, method: 'PUT', headers: { 'content-length': 1_000_000 } }

    const refused = request({ ...options, path: '/refused' })
    const answer = new Promise<number | undefined>((resolve) =>
      refused.on('response', (res) => resolve(res.statusCode)),
    )
    refused.on('error', () => undefined)
    refused.write(Buffer.alloc(1000))
    assert.equal(await answer, 413)
    refused.destroy()

    const vanishing = request({ ...options, path: '/vanishing' })
    vanishing.on('error', () => undefined)
    vanishing.write(Buffer.alloc(1000), () => vanishing.destroy())
    await new Promise((resolve) => server.on('close', resolve))
    assert.ok(kind('invalid')(outcomes[0]), String(outcomes[0]))
  })
})

describe('requestedRange()', () => {
  const range = (text: string, size: number) => requestedRange({ range: text }, size)
  const old = (text: string, size: number) => requestedRange({ 'content-range': text }, size)

  it('is undefined without a header', () => assert.equal(requestedRange({}, 10), undefined))

  it('reads the three forms of Range, and clips the end', () => {
    assert.deepEqual(range('bytes=2-5', 10), { offset: 2, length: 4 })
    assert.deepEqual(range('bytes=2-500', 10), { offset: 2, length: 8 })
    assert.deepEqual(range('bytes=9-', 10), { offset: 9, length: 1 })
    assert.deepEqual(range('bytes=-3', 10), { offset: 7, length: 3 })
    assert.deepEqual(range('bytes=-30', 10), { offset: 0, length: 10 })
    assert.deepEqual(range('Bytes = 0 - 0', 10), { offset: 0, length: 1 })
  })

  it('is not satisfiable when it starts past the end, is reversed or is no byte range', () => {
    for (const text of [
      'bytes=10-',
      'bytes=10-12',
      'bytes=5-4',
      'bytes=-',
      'bytes=-0',
      'bytes=a-b',
      'bytes=1',
      'rows=1-2',
      '',
      '1-2',
      'bytes=1-2x',
    ]) {
      assert.throws(() => range(text, 10), kind('range-not-satisfiable'), text)
    }
    for (const text of ['bytes=0-', 'bytes=-1', 'bytes=0-0']) {
      assert.throws(() => range(text, 0), kind('range-not-satisfiable'), text)
    }
  })

  it('is invalid with any comma', () => {
    for (const text of ['bytes=0-1,3-4', 'bytes=0-1,', ',']) assert.throws(() => range(text, 10), kind('invalid'), text)
  })

  it('honours Content-Range, where the end must lie inside, after Range', () => {
    assert.deepEqual(old('bytes 2-5/*', 10), { offset: 2, length: 4 })
    assert.deepEqual(old('bytes 0-9/10', 10), { offset: 0, length: 10 })
    assert.deepEqual(requestedRange({ range: 'bytes=1-1', 'content-range': 'bytes 2-5/*' }, 10), {
      offset: 1,
      length: 1,
    })
    for (const text of ['bytes 2-10/*', 'bytes 5-2/*', 'bytes 0-9/5', 'bytes */10', 'bytes=1-2', '', 'bytes 10-11/*']) {
      assert.throws(() => old(text, 10), kind('range-not-satisfiable'), text)
    }
  })

  it('reads every satisfiable range as it was meant', () => {
    const sizes = fc.integer({ min: 1, max: 2 ** 50 })
    const ranges = sizes.chain((size) =>
      fc.tuple(
        fc.constant(size),
        fc.maxSafeNat().map((n) => n % size),
        fc.maxSafeNat().map((n) => n % size),
      ),
    )
    fc.assert(
      fc.property(ranges, ([size, a, b]) => {
        const wanted = { offset: Math.min(a, b), length: Math.abs(a - b) + 1 }
        const last = wanted.offset + wanted.length - 1
        assert.deepEqual(range(`bytes=${wanted.offset}-${last}`, size), wanted)
        assert.deepEqual(old(contentRange(wanted, size), size), wanted)
        assert.deepEqual(old(`bytes ${wanted.offset}-${last}/*`, size), wanted)
        assert.deepEqual(range(`bytes=${wanted.offset}-`, size), {
          offset: wanted.offset,
          length: size - wanted.offset,
        })
        assert.deepEqual(range(`bytes=-${wanted.length}`, size), {
          offset: size - wanted.length,
          length: wanted.length,
        })
      }),
    )
  })

  it('never gives bytes outside of the image, whatever the header says', () => {
    const texts = fc.oneof(fc.string(), fc.stringMatching(/^bytes[= ]\d{0,3}-?\d{0,3}(\/(\d{0,3}|\*))?$/))
    fc.assert(
      fc.property(texts, fc.nat(300), fc.boolean(), (text, size, legacy) => {
        try {
          const { offset = 0, length = 0 } = (legacy ? old : range)(text, size) ?? {}
          assert.ok(offset >= 0 && length > 0 && offset + length <= size)
        } catch (error) {
          assert.ok(hasKind(error, 'range-not-satisfiable', 'invalid'), String(error))
        }
      }),
    )
  })
})
