import type { Readable } from 'node:stream'
import { type ErrorKind, ServiceError } from '../domain/errors.ts'

/**
 * Bytes on their way. A chunk is valid only until the next one is asked for: who needs it longer copies it.
 * (So a source may fill the same few buffers again and again, which halves the cost of a download.)
 * Leaving the loop early (`return()`) releases what the source holds. A source is read once, by one reader.
 */
export type ByteSource = AsyncIterable<Buffer>

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/**
 * What a Node stream brings, one chunk at a time; nothing is read ahead of the consumer beyond the stream's own buffer.
 * Leaving early pauses the stream and does not destroy it, so that a refused upload can still be answered.
 * Throws the stream's error, and `invalid` when the stream is closed before its end.
 *
 * With `owned`, chunks are nobody else's: each is freed as soon as the next is asked for. Waiting for the collector
 * instead costs half a CPU second per GiB, since it is called for every few megabytes.
 */
export function fromReadable(stream: Readable, { owned = false } = {}): ByteSource {
  let waiting: { resolve(result: IteratorResult<Buffer>): void; reject(error: unknown): void } | undefined
  let state: 'open' | 'ended' | { readonly failed: unknown } = 'open'

  const close = (end: Exclude<typeof state, 'open'>) => {
    if (state !== 'open') return
    state = end
    stream.off('readable', settle).off('end', settle).off('close', settle).off('error', fail)
    // A late error (the client goes away after a refusal) is nobody's business any more, and must not end the process.
    stream.on('error', () => undefined)
  }
  const fail = (error: Error) => {
    close({ failed: 'code' in error && error.code === 'ECONNRESET' ? cutOff(error) : error })
    settle()
  }
  const settle = () => {
    if (waiting === undefined) return
    const chunk = state === 'open' ? (stream.read() as Buffer | null) : null
    if (chunk === null) {
      if (stream.readableEnded) close('ended')
      else if (stream.destroyed) close({ failed: stream.errored ?? cutOff() })
      if (state === 'open') return
    }
    const { resolve, reject } = waiting
    waiting = undefined
    if (chunk !== null) resolve({ value: chunk, done: false })
    else if (typeof state === 'object') reject(state.failed)
    else resolve({ value: undefined, done: true })
  }
  stream.on('readable', settle).on('end', settle).on('close', settle).on('error', fail)
  let given: Buffer | undefined
  return {
    [Symbol.asyncIterator]: () => ({
      next: () =>
        new Promise((resolve, reject) => {
          if (owned && given !== undefined) free(given)
          waiting = {
            resolve: (result) => {
              given = result.done ? undefined : result.value
              resolve(result)
            },
            reject,
          }
          settle()
        }),
      return: async () => {
        close('ended')
        settle()
        return { value: undefined, done: true }
      },
    }),
  }
}

/** Gives the memory of a chunk back, if the chunk is all there is in it. */
function free({ buffer, length }: Buffer): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === length) buffer.transfer(0)
}

const cutOff = (cause?: unknown) =>
  new ServiceError('invalid', 'The connection was closed before the end of the data', { cause })

/** The same bytes; rejects with the signal's reason as soon as it is aborted, even while the source says nothing. */
export function abortable(source: ByteSource, signal: AbortSignal): ByteSource {
  return {
    [Symbol.asyncIterator]: () => {
      const inner = source[Symbol.asyncIterator]()
      let interrupt: ((reason: unknown) => void) | undefined
      // Not awaited: a silent source would answer only with its next chunk.
      const leave = () => void inner.return?.().then(undefined, () => undefined)
      const onAbort = () => {
        interrupt?.(signal.reason)
        leave()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) leave()
      const release = () => signal.removeEventListener('abort', onAbort)
      return {
        next: () =>
          new Promise((resolve, reject) => {
            if (signal.aborted) {
              reject(signal.reason)
              return
            }
            interrupt = reject
            inner.next().then((result) => {
              if (result.done) release()
              resolve(result)
            }, reject)
          }),
        return: async () => {
          release()
          await inner.return?.()
          return { value: undefined, done: true }
        },
      }
    },
  }
}

/** The same bytes; throws an error of `kind` when they turn out to be more or fewer than `size`. */
export const exactLength = (source: ByteSource, size: number, kind: ErrorKind = 'invalid'): ByteSource =>
  releasing(source, countedTo(source, size, kind))

async function* countedTo(source: ByteSource, size: number, kind: ErrorKind): AsyncGenerator<Buffer> {
  let seen = 0
  for await (const chunk of source) {
    seen += chunk.length
    if (seen > size) throw wrongLength(kind, size, `more than ${size}`)
    yield chunk
  }
  if (seen < size) throw wrongLength(kind, size, seen)
}

export const wrongLength = (kind: ErrorKind, expected: number, got: number | string): ServiceError =>
  new ServiceError(kind, `Expected ${expected} bytes of image data but got ${got}`)

/** The bytes of one range; what lies before it is read and thrown away, and nothing is read after it. */
export const slice = (source: ByteSource, range: ByteRange): ByteSource => releasing(source, sliced(source, range))

async function* sliced(source: ByteSource, { offset, length }: ByteRange): AsyncGenerator<Buffer> {
  let skip = offset
  let left = length
  for await (const chunk of source) {
    const part = chunk.subarray(skip, skip + left)
    skip -= Math.min(skip, chunk.length)
    left -= part.length
    if (part.length > 0) yield part
    if (left === 0) return
  }
}

/**
 * `bytes`, a generator over `source`, as a source that may also be left before its first chunk: a generator that never
 * ran does not run its `finally` either, and would keep what `source` holds.
 */
export const releasing = (source: ByteSource, bytes: AsyncGenerator<Buffer>): ByteSource => {
  let started = false
  return {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        started = true
        return bytes.next()
      },
      return: async () => {
        if (!started) await source[Symbol.asyncIterator]().return?.()
        started = true
        return bytes.return(undefined)
      },
    }),
  }
}

/**
 * What a download asks for; undefined means all of it. `Range` (RFC 9110) counts before `Content-Range`, which old
 * clients send as a request header. Throws `range-not-satisfiable`, and `invalid` for several ranges at once.
 */
export function requestedRange(
  headers: { readonly range?: string | undefined; readonly 'content-range'?: string | undefined },
  size: number,
): ByteRange | undefined {
  const contentRange = headers['content-range']
  if (headers.range !== undefined) return parseRange(headers.range, size)
  if (contentRange !== undefined) return parseContentRange(contentRange, size)
  return undefined
}

const unsatisfiable = (message: string) => new ServiceError('range-not-satisfiable', message)
const startBeyond = (header: string, size: number) =>
  unsatisfiable(
    `Invalid start position in ${header} header. Start position MUST be in the inclusive range [0, ${size - 1}].`,
  )

function parseRange(header: string, size: number): ByteRange {
  if (header.includes(',')) {
    throw new ServiceError(
      'invalid',
      'Requests with multiple ranges are not supported in Glance. You may make multiple single-range requests instead.',
    )
  }
  const [, first = '', last = ''] = /^\s*bytes *= *(\d*) *- *(\d*)\s*$/i.exec(header) ?? []
  if (first === '' && Number(last) > 0 && size > 0) {
    const length = Math.min(Number(last), size)
    return { offset: size - length, length }
  }
  const offset = Number(first)
  const end = last === '' ? size : Math.min(Number(last) + 1, size)
  if (first === '' || (last !== '' && Number(last) < offset)) throw unsatisfiable('Invalid Range header.')
  if (offset >= size) throw startBeyond('Range', size)
  return { offset, length: end - offset }
}

function parseContentRange(header: string, size: number): ByteRange {
  const [, first, last, total = '*'] = /^\s*bytes (\d+)-(\d+)\/(\d+|\*)\s*$/.exec(header) ?? []
  const offset = Number(first)
  const end = Number(last) + 1
  // `!(a < b)` so that what did not match at all (NaN) is refused too.
  if (!(offset < end) || (total !== '*' && end > Number(total))) throw unsatisfiable('Invalid Content-Range header.')
  if (end > size) {
    throw unsatisfiable(
      'Invalid stop position in Content-Range header. ' +
        `The stop position MUST be in the inclusive range [0, ${size - 1}].`,
    )
  }
  return { offset, length: end - offset }
}

/** The value of a response's Content-Range. */
export const contentRange = ({ offset, length }: ByteRange, size: number): string =>
  `bytes ${offset}-${offset + length - 1}/${size}`
