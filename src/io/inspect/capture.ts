import type { Finding, Piece, Probe } from './probe.ts'

/** Runs one probe over a stream that passes once. */
export interface Capture {
  /** Whether the probe waits for bytes that update() can bring. */
  waiting(): boolean
  /** `start` is where in the stream the chunk begins. */
  update(chunk: Buffer, start: number): void
  /** `tail` holds the last bytes of the stream of `size` bytes. */
  end(tail: Buffer, size: number): Finding | undefined
}

export function capture(probe: Probe): Capture {
  let step = probe.next()
  let bytes: Buffer | undefined
  let filled = 0
  /** Where the regions asked for so far end. */
  let reached = 0

  const wanted = () => (!step.done && 'offset' in step.value ? step.value : undefined)
  const captured = ({ length }: { readonly length: number }, seen: number): Piece => ({
    bytes: bytes ?? Buffer.alloc(length),
    complete: filled === length,
    seen,
  })
  const give = (piece: Piece) => {
    bytes = undefined
    filled = 0
    step = probe.next(piece)
  }

  return {
    waiting: () => wanted() !== undefined,
    update: (chunk, start) => {
      const end = start + chunk.length
      for (let region = wanted(); region !== undefined && region.offset + filled < end; region = wanted()) {
        // Bytes gone by are missing, even if the chunk at hand happens to have them.
        if (region.offset >= reached) {
          bytes ??= Buffer.alloc(region.length)
          filled += chunk.copy(bytes, filled, region.offset + filled - start)
          if (filled < region.length) return
          reached = region.offset + region.length
        }
        give(captured(region, end))
      }
    },
    end: (tail, size) => {
      while (!step.done) give('offset' in step.value ? captured(step.value, size) : ending(tail, step.value.last, size))
      return step.value
    },
  }
}

function ending(tail: Buffer, length: number, seen: number): Piece {
  const bytes = Buffer.alloc(length)
  const copied = tail.copy(bytes, 0, Math.max(0, tail.length - length))
  return { bytes, complete: copied === length, seen }
}

export interface Tail {
  update(chunk: Buffer): void
  bytes(): Buffer
}

/** Remembers the last `capacity` bytes of a stream. */
export function tailOf(capacity: number): Tail {
  const kept = Buffer.alloc(capacity)
  let length = 0
  return {
    update: (chunk) => {
      if (chunk.length >= capacity) {
        chunk.copy(kept, 0, chunk.length - capacity)
        length = capacity
        return
      }
      const keep = Math.min(length, capacity - chunk.length)
      kept.copyWithin(0, length - keep, length)
      chunk.copy(kept, keep)
      length = keep + chunk.length
    },
    bytes: () => kept.subarray(0, length),
  }
}
