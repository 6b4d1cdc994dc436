import type { Log } from '../log.ts'
import type { Message, NotifyDriver } from './driver.ts'

/** A way to deliver over which a queue stands. */
export interface Sender {
  /** Names the way in the log; says nothing secret. */
  readonly name: string
  /** How many messages may be under way at once. */
  readonly window: number
  /**
   * Resolves when the other end has the message. Throws `Refused` when it will never take it, and anything else when it
   * may take it later. Calls made at one moment reach the other end in their order.
   */
  send(message: Message): Promise<void>
  /** Ends what is under way. */
  close(): Promise<void>
}

/** The other end does not want this message, now or later. */
export class Refused extends Error {
  override readonly name = 'Refused'
}

export interface QueueOptions {
  /** How many messages may wait, and how many characters in all of them. */
  readonly maxMessages: number
  readonly maxSize: number
  /** How often a message is tried again before it is dropped; -1: for ever. */
  readonly retries: number
  /** Milliseconds to wait after the nth failure in a row, from 1 on. */
  readonly pauseMs: (failures: number) => number
  readonly log: Log
}

interface Waiting {
  readonly message: Message
  failures: number
}

const sizeOf = (some: readonly Waiting[]): number => some.reduce((sum, { message }) => sum + message.json.length, 0)

/** How often a full queue is spoken of. */
const REPORT_MS = 10_000

/**
 * Stands between requests, which never wait, and a receiver that may be slow or away. What does not fit any more is
 * dropped: what waits already keeps its place, so that what arrives is in order and without holes but at the end.
 */
export function queued(sender: Sender, { maxMessages, maxSize, retries, pauseMs, log }: QueueOptions): NotifyDriver {
  const waiting: Waiting[] = []
  let size = 0
  let failures = 0
  let dropped = 0
  let reportedAt = Number.NEGATIVE_INFINITY
  let running: Promise<void> | undefined
  let wake: (() => void) | undefined
  let over = false

  const reportDropped = (): void => {
    if (dropped === 0 || (performance.now() < reportedAt + REPORT_MS && !over)) return
    log.warn(`${sender.name}: the queue was full, ${dropped} notifications were dropped`)
    dropped = 0
    reportedAt = performance.now()
  }

  const accept = (message: Message): void => {
    if (over || waiting.length >= maxMessages || size + message.json.length > maxSize) {
      dropped += 1
      reportDropped()
      return
    }
    waiting.push({ message, failures: 0 })
    size += message.json.length
    running ??= run()
  }

  const run = async (): Promise<void> => {
    // The request that told of something goes on first.
    await new Promise<void>((resolve) => setImmediate(resolve))
    while (waiting.length > 0 && !over) {
      const batch = waiting.slice(0, sender.window)
      const results = await Promise.allSettled(batch.map(({ message }) => sender.send(message)))
      if (over) return
      const failed = new Map<Waiting, unknown>()
      for (const [index, one] of batch.entries()) {
        const result = results[index]
        if (result?.status === 'rejected') failed.set(one, result.reason)
      }
      const left = batch.filter((one) => failed.has(one) && mayStillArrive(one, failed.get(one)))
      waiting.splice(0, batch.length, ...left)
      size += sizeOf(left) - sizeOf(batch)
      const away = [...failed.values()].find((reason) => !(reason instanceof Refused))
      if (away === undefined) {
        if (failures > 0) log.info(`${sender.name}: notifications are delivered again`)
        failures = 0
        reportDropped()
      } else {
        failures += 1
        log.warn(`${sender.name}: ${waiting.length} notifications wait, attempt ${failures} failed`, away)
        await pause(pauseMs(failures))
      }
    }
    running = undefined
  }

  const mayStillArrive = (one: Waiting, reason: unknown): boolean => {
    one.failures += 1
    if (!(reason instanceof Refused) && (retries < 0 || one.failures <= retries)) return true
    log.error(`${sender.name}: notification ${one.message.event} ${one.message.id} is dropped`, reason)
    return false
  }

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })

  return {
    accept,
    close: async (timeoutMs) => {
      wake?.() // one more attempt at once
      let timer: NodeJS.Timeout | undefined
      const timeout = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, timeoutMs)
      })
      await Promise.race([running, timeout])
      clearTimeout(timer)
      over = true
      wake?.()
      await sender.close()
      reportDropped()
      if (waiting.length > 0) log.error(`${sender.name}: ${waiting.length} notifications were not delivered`)
    },
  }
}
