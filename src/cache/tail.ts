import type { FileHandle } from 'node:fs/promises'
import { ServiceError } from '../domain/errors.ts'
import { abortable, type ByteRange, type ByteSource } from '../io/bytes.ts'
import { type Buffers, fileSource } from '../io/file-source.ts'
import type { Growth } from './growth.ts'

/** Opens a range of an image where its data is kept; undefined when it is nowhere. */
export type Fetch = (range: ByteRange, signal: AbortSignal) => Promise<ByteSource | undefined>

/** For readers at the growing end, who get less at a time anyway. */
const BLOCK = 262_144

export interface TailOptions {
  readonly signal: AbortSignal
  readonly buffers: Buffers
  /** Where the rest comes from when the copy will not be completed. */
  readonly fetch: Fetch
}

/**
 * Bytes of a file that is still growing, as they come; once it is complete, as fast as any file. The file belongs to
 * the source from here on.
 */
export function tailSource(growth: Growth, file: FileHandle, range: ByteRange, options: TailOptions): ByteSource {
  const bytes = tail(growth, file, range, options)
  let started = false
  return abortable(
    {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          started = true
          return bytes.next()
        },
        return: async () => {
          // A generator that never ran does not run its `finally` either.
          if (!started) await file.close()
          started = true
          return bytes.return(undefined)
        },
      }),
    },
    options.signal,
  )
}

async function* tail(
  growth: Growth,
  file: FileHandle,
  range: ByteRange,
  { signal, buffers, fetch }: TailOptions,
): AsyncGenerator<Buffer> {
  const end = range.offset + range.length
  let position = range.offset
  let open = true
  const rest = () => ({ offset: position, length: end - position })
  try {
    while (position < end) {
      const available = await unlessAborted(growth.beyond(position), signal)
      if (available === undefined) {
        yield* await fetchRest(fetch, rest(), signal)
        return
      }
      if (available === growth.size) {
        open = false
        yield* fileSource(file, rest(), signal, buffers)
        return
      }
      const buffer = buffers.take(BLOCK)
      const length = Math.min(buffer.length, Math.min(available, end) - position)
      const { bytesRead } = await file.read(buffer, 0, length, position)
      if (bytesRead === 0) {
        // The file was given up and another one is growing in its place.
        yield* await fetchRest(fetch, rest(), signal)
        return
      }
      position += bytesRead
      yield buffer.subarray(0, bytesRead)
      buffers.give(buffer)
    }
  } finally {
    if (open) await file.close()
  }
}

/** Who has gone does not wait, with a file open, for bytes that may come in a day or never. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    if (signal.aborted) leave()
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}

async function fetchRest(fetch: Fetch, range: ByteRange, signal: AbortSignal): Promise<ByteSource> {
  const source = await fetch(range, signal)
  if (source === undefined) throw new ServiceError('unavailable', 'Image data is not there any more')
  return source
}
