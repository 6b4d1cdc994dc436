import type { ByteSource } from './bytes.ts'

interface Waiting {
  resolve(result: IteratorResult<Buffer>): void
  reject(error: unknown): void
}

/**
 * The bytes of one source for `count` readers, who go in step: the next chunk is asked for when every reader is done
 * with the last one, so that nothing is copied or kept. A reader that leaves is not waited for any more; the last one
 * to leave releases the source. Every branch must be read to its end or left.
 */
export function split(source: ByteSource, count: number): readonly Branch[] {
  const input = source[Symbol.asyncIterator]()
  const waiting = new Map<number, Waiting>()
  const readers = new Set(Array.from({ length: count }, (_, index) => index))
  let reading = false
  let end: { readonly failed?: unknown } | undefined

  const settleAll = (settle: (reader: Waiting) => void) => {
    const ready = [...waiting.values()]
    waiting.clear()
    ready.forEach(settle)
  }
  const advance = () => {
    if (reading || readers.size === 0 || waiting.size < readers.size) return
    reading = true
    input.next().then(
      (result) => {
        reading = false
        if (result.done) end = {}
        settleAll(({ resolve }) => resolve(result))
      },
      (failed: unknown) => {
        reading = false
        end = { failed }
        settleAll(({ reject }) => reject(failed))
      },
    )
  }
  const leave = async (reader: number): Promise<void> => {
    if (!readers.delete(reader)) return
    waiting.get(reader)?.resolve({ value: undefined, done: true })
    waiting.delete(reader)
    if (readers.size > 0) advance()
    else if (end === undefined) await input.return?.()
  }

  return Array.from(readers, (reader): Branch => {
    const iterator: AsyncIterator<Buffer> = {
      next: () =>
        new Promise((resolve, reject) => {
          if (end !== undefined || !readers.has(reader)) {
            if (end !== undefined && 'failed' in end) reject(end.failed)
            else resolve({ value: undefined, done: true })
            return
          }
          waiting.set(reader, { resolve, reject })
          advance()
        }),
      return: async () => {
        await leave(reader)
        return { value: undefined, done: true }
      },
    }
    return { [Symbol.asyncIterator]: () => iterator, leave: () => leave(reader) }
  })
}

export interface Branch extends ByteSource {
  /** For readers who may never have begun. */
  leave(): Promise<void>
}
