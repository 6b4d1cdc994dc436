import { ServiceError } from '../domain/errors.ts'
import type { ByteRange, ByteSource } from './bytes.ts'

/** Buffers to read into, used again and again: the memory of a fresh one costs as much as filling it. */
export interface Buffers {
  take(size: number): Buffer
  give(buffer: Buffer): void
}

const SMALLEST = 65_536
const LARGEST = 1_048_576
const KEPT_OF_EACH_SIZE = 4
/** A consumer below is quick, above the other is slow; in between the size of the reads stays as it is. */
const QUICK_MS = 20
const SLOW_MS = 100
/**
 * Quick chunks before the reads get larger. The first MiB of any download disappear quickly into the buffers of
 * sockets; a slow client must not be taken for a quick one because of them.
 */
const QUICK_CHUNKS = 32

export function openBuffers(): Buffers {
  const kept = new Map<number, Buffer[]>()
  return {
    take: (size) => kept.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size),
    give: (buffer) => {
      const same = kept.get(buffer.length) ?? []
      kept.set(buffer.length, same)
      if (same.length < KEPT_OF_EACH_SIZE) same.push(buffer)
    },
  }
}

/** As much of a FileHandle as it takes. */
export interface ReadableFile {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ readonly bytesRead: number }>
  close(): Promise<void>
}

interface Block {
  readonly buffer: Buffer
  readonly length: number
}

/**
 * Bytes of an open file, which belongs to the source from here on and is closed at the end, when the reader leaves and
 * when `signal` is aborted. One block is read ahead while the other is consumed, of 64 KiB for a slow consumer and up
 * to 1 MiB for a quick one. Throws `unavailable` when the file ends before the range does.
 */
export function fileSource(file: ReadableFile, range: ByteRange, signal: AbortSignal, buffers: Buffers): ByteSource {
  const end = range.offset + range.length
  let position = range.offset
  let size = SMALLEST
  let quickChunks = 0
  let slow = false
  let consumed: { readonly buffer: Buffer; readonly since: number } | undefined
  let ahead: Promise<Block> | undefined
  let closed: Promise<void> | undefined

  const readBlock = (): Promise<Block> | undefined => {
    if (position >= end) return undefined
    const buffer = buffers.take(size)
    const block = { buffer, length: Math.min(size, end - position) }
    const reading = fill(file, block, position).then(() => block)
    reading.catch(() => undefined) // whoever asks for the block hears of it
    position += block.length
    return reading
  }
  const adapt = (elapsedMs: number) => {
    slow = elapsedMs > SLOW_MS
    quickChunks = elapsedMs < QUICK_MS ? quickChunks + 1 : 0
    if (slow) size = Math.max(SMALLEST, size / 2)
    if (quickChunks < QUICK_CHUNKS) return
    size = Math.min(LARGEST, size * 2)
    quickChunks = 0
  }
  const close = () => {
    closed ??= finish()
    return closed
  }
  const finish = async () => {
    signal.removeEventListener('abort', onAbort)
    // The block that the reader still holds is not used again: a socket may be sending it yet.
    const unread = await ahead?.catch(() => undefined)
    if (unread !== undefined) buffers.give(unread.buffer)
    await file.close()
  }
  // The reader hears of a failure by its own next step.
  const onAbort = () => void close().catch(() => undefined)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()

  const next = async (): Promise<IteratorResult<Buffer>> => {
    if (consumed !== undefined) {
      adapt(performance.now() - consumed.since)
      buffers.give(consumed.buffer)
      consumed = undefined
    }
    const reading = closed === undefined ? (ahead ?? readBlock()) : undefined
    ahead = undefined
    const block = await reading
    signal.throwIfAborted()
    if (block === undefined) {
      await close()
      return { value: undefined, done: true }
    }
    if (!slow) ahead = readBlock()
    consumed = { buffer: block.buffer, since: performance.now() }
    return { value: block.buffer.subarray(0, block.length), done: false }
  }
  return {
    [Symbol.asyncIterator]: () => ({
      next: () =>
        next().catch(async (error: unknown) => {
          await close()
          throw signal.aborted ? signal.reason : unreadable(error)
        }),
      return: async () => {
        await close()
        return { value: undefined, done: true }
      },
    }),
  }
}

async function fill(file: ReadableFile, { buffer, length }: Block, position: number): Promise<void> {
  for (let filled = 0; filled < length; ) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) throw new ServiceError('unavailable', 'Image data ended early', { detail: { position } })
    filled += bytesRead
  }
}

const unreadable = (cause: unknown) =>
  cause instanceof ServiceError ? cause : new ServiceError('unavailable', 'Image data cannot be read', { cause })
