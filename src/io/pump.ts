import { availableParallelism } from 'node:os'
import { Readable } from 'node:stream'
import { ServiceError } from '../domain/errors.ts'
import { type ByteSource, fromReadable } from './bytes.ts'
import { type Digesting, openDigesters, type Signature, VERIFIED } from './digest.ts'

/** Sees every byte of a stream in order, on the main thread, and may throw to refuse the stream. */
export interface Tap {
  update(chunk: Buffer): void
  /** All bytes were seen; comes before the sink learns of the end, so that throwing still undoes the write. */
  end?(): void
}

export interface CopyOptions {
  readonly taps?: readonly Tap[]
  /** Hash functions as node:crypto names them. */
  readonly digests: readonly string[]
  /** Verified in a hashing thread; the copy rejects with `invalid`, which the sink sees, when it does not fit. */
  readonly signature?: Signature | undefined
  readonly signal: AbortSignal
  /** Names where the bytes go: when that stands still, its copies leave memory to others. Without it they may take all. */
  readonly lane?: string | undefined
}
export interface Copied<Result> {
  /** What the sink made of the bytes. */
  readonly result: Result
  readonly size: number
  /** In hex, in the order asked for. */
  readonly digests: readonly string[]
}

/** The only copy loop of the service: one pass from a source to taps, hashing threads and a sink. */
export interface Pump {
  /**
   * Hands the bytes of `source` to `sink`, in batches of up to 1 MiB, and resolves once the sink has.
   * Rejects with the error of the source, of a tap or of the sink, or with the signal's reason; the sink sees the
   * first three of these, too, while it reads, and has settled before this does. The source is left, not drained.
   * Throws `invalid` for an unknown digest before anything is read.
   */
  copy<Result>(
    source: ByteSource,
    sink: (body: ByteSource) => Promise<Result>,
    options: CopyOptions,
  ): Promise<Copied<Result>>
  /** Ends the hashing threads; copies that are under way reject. */
  close(): Promise<void>
}

/** What is gathered before it is worth the way through threads and drivers. */
const WORTH_SENDING = 32_768
const SLOT_SIZE = 1_048_576
const SLOTS_PER_COPY = 4

/** A process needs one: it owns the shared memory (only what is used of it is ever backed by RAM) and the threads. */
export function openPump({
  memoryMiB = 32,
  threads = Math.max(2, Math.min(availableParallelism(), 8)),
}: {
  readonly memoryMiB?: number
  readonly threads?: number
} = {}): Pump {
  const memory = new SharedArrayBuffer(memoryMiB * SLOT_SIZE)
  const slots = openSlots(memory)
  const digesters = openDigesters(memory, threads)
  return {
    copy: (source, sink, options) => {
      const { digests, signature } = options
      const work = signature === undefined ? digests : [...digests, signature]
      return copy(slots, digesters.begin(work), source, sink, options)
    },
    close: digesters.close,
  }
}

/** A piece of the shared memory, in the hands of one copy. */
interface Slot {
  readonly offset: number
  readonly bytes: Buffer
  lane: string | undefined
  filled: number
  /** Who still reads it. */
  readers: number
}
interface Slots {
  /** Calls back with a slot, at once or when those of the lane who asked before have got theirs. */
  take(lane: string | undefined, ready: (slot: Slot) => void): void
  give(slot: Slot): void
}

/** A lane may hold so many times what is free: alone it gets three quarters of all, and some are always left. */
const SHARE = 3

function openSlots(memory: SharedArrayBuffer): Slots {
  const free = Array.from({ length: memory.byteLength / SLOT_SIZE }, (_, index): Slot => {
    const offset = index * SLOT_SIZE
    return { offset, bytes: Buffer.from(memory, offset, SLOT_SIZE), lane: undefined, filled: 0, readers: 0 }
  }).reverse()
  const held = new Map<string | undefined, number>()
  const heldBy = (lane: string | undefined): number => held.get(lane) ?? 0
  const mayTake = (lane: string | undefined) =>
    free.length > 0 && (lane === undefined || heldBy(lane) < SHARE * free.length)
  const waiting: { readonly lane: string | undefined; readonly ready: (slot: Slot) => void }[] = []
  const serve = (): void => {
    for (;;) {
      const next = waiting.findIndex(({ lane }) => mayTake(lane))
      const [one] = next < 0 ? [] : waiting.splice(next, 1)
      // The slot used last is taken first: it is still in the processor's cache, and the others need no memory.
      const slot = one && free.pop()
      if (one === undefined || slot === undefined) return
      slot.lane = one.lane
      held.set(one.lane, heldBy(one.lane) + 1)
      one.ready(slot)
    }
  }
  return {
    take: (lane, ready) => {
      waiting.push({ lane, ready })
      serve()
    },
    give: (slot) => {
      slot.filled = 0
      held.set(slot.lane, heldBy(slot.lane) - 1)
      free.push(slot)
      serve()
    },
  }
}

async function copy<Result>(
  slots: Slots,
  digesting: Digesting,
  source: ByteSource,
  sink: (body: ByteSource) => Promise<Result>,
  { taps = [], signature, signal, lane }: CopyOptions,
): Promise<Copied<Result>> {
  // A Node stream's own iterator would destroy it when left early, and with it the connection that is to carry the answer.
  const input = (source instanceof Readable ? fromReadable(source) : source)[Symbol.asyncIterator]()
  /** Small chunks of a slow source, so that it owns no slot while it says nothing. */
  let crumbs: Buffer | undefined
  let crumbSize = 0
  /** Gathers while something is in flight. */
  let filling: Slot | undefined
  const queue: Slot[] = []
  let held = 0
  let inFlight = 0
  let size = 0
  let digests: readonly string[] | undefined
  let delivered = false
  let failure: { readonly error: unknown } | undefined
  let stopped = false
  let wakeFeeder: (() => void) | undefined
  let wakeSink: (() => void) | undefined

  const fail = (error: unknown) => {
    failure ??= { error }
    stop()
    wakeSink?.()
  }
  /** Not awaited: a silent source would answer only with its next chunk. */
  const stop = () => {
    if (stopped) return
    stopped = true
    wakeFeeder?.()
    input.return?.().then(undefined, () => undefined)
  }

  const dispatch = () => {
    const slot = filling
    if (slot === undefined) return
    filling = undefined
    if (stopped) return giveBack(slot)
    inFlight++
    slot.readers = 2
    digesting.update(slot.offset, slot.filled, () => leave(slot))
    queue.push(slot)
    wakeSink?.()
  }
  const leave = (slot: Slot) => {
    if (--slot.readers > 0) return
    inFlight--
    giveBack(slot)
    if (inFlight === 0) dispatch()
  }
  const giveBack = (slot: Slot) => {
    held--
    slots.give(slot)
    wakeFeeder?.()
  }
  const takeSlot = async (): Promise<Slot | undefined> => {
    while (held >= SLOTS_PER_COPY && !stopped) await new Promise<void>((resolve) => (wakeFeeder = resolve))
    if (stopped) return undefined
    held++
    const slot = await new Promise<Slot>((resolve) => slots.take(lane, resolve))
    if (!stopped) return slot
    giveBack(slot)
    return undefined
  }
  const pour = async (chunk: Buffer): Promise<void> => {
    for (let from = 0; from < chunk.length && !stopped; ) {
      filling ??= await takeSlot()
      if (filling === undefined) return
      const part = chunk.copy(filling.bytes, filling.filled, from)
      filling.filled += part
      from += part
      if (filling.filled === SLOT_SIZE) dispatch()
    }
    if (inFlight === 0 || stopped) dispatch()
  }
  const pourCrumbs = async (): Promise<void> => {
    const bytes = crumbs?.subarray(0, crumbSize)
    crumbSize = 0
    if (bytes !== undefined && bytes.length > 0) await pour(bytes)
  }
  const feed = async (): Promise<void> => {
    for (;;) {
      const { done, value: chunk } = await input.next()
      if (stopped) return
      if (done) break
      for (const tap of taps) tap.update(chunk)
      size += chunk.length
      if (filling !== undefined) await pour(chunk)
      else if (crumbSize + chunk.length < WORTH_SENDING) {
        crumbs ??= Buffer.allocUnsafeSlow(WORTH_SENDING)
        crumbSize += chunk.copy(crumbs, crumbSize)
      } else {
        await pourCrumbs()
        await pour(chunk)
      }
    }
    await pourCrumbs()
    dispatch()
    for (const tap of taps) tap.end?.()
    // Waited for before the sink learns of the end: if a thread died, the write fails like any other.
    const done = await digesting.end()
    if (signature !== undefined && done.at(-1) !== VERIFIED) throw new ServiceError('invalid', signature.refusal)
    digests = signature === undefined ? done : done.slice(0, -1)
    wakeSink?.()
  }

  let reading: Slot | undefined
  const release = () => {
    const slot = reading
    reading = undefined
    if (slot !== undefined) leave(slot)
  }
  const body: AsyncIterator<Buffer> = {
    next: async () => {
      release()
      while (failure === undefined && queue.length === 0 && digests === undefined) {
        await new Promise<void>((resolve) => (wakeSink = resolve))
      }
      if (failure !== undefined) throw failure.error
      reading = queue.shift()
      if (reading !== undefined) return { value: reading.bytes.subarray(0, reading.filled), done: false }
      delivered = true
      return { value: undefined, done: true }
    },
    return: async () => {
      release()
      return { value: undefined, done: true }
    },
  }

  const onAbort = () => fail(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  feed().catch(fail)
  try {
    const result = await sink({ [Symbol.asyncIterator]: () => body })
    if (digests === undefined || !delivered) {
      throw failure?.error ?? new ServiceError('internal', 'Image data was not written to its end')
    }
    return { result, size, digests }
  } finally {
    signal.removeEventListener('abort', onAbort)
    stop()
    release()
    if (digests === undefined) digesting.drop()
    for (const slot of queue.splice(0)) leave(slot)
  }
}
