import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { ImageId, ProjectId } from '../domain/ids.ts'
import { silentLog } from '../log.ts'
import { createMessage, type Message, type NotifyDriver } from './driver.ts'
import { type QueueOptions, queued, type Sender } from './queue.ts'

/** A receiver that can go away and come back. */
export interface ReceiverUnderTest {
  readonly sender: Sender
  /** Ids of all messages that the receiver has, in the order of their arrival; at least as many as asked for. */
  received(atLeast: number): Promise<readonly string[]>
  away(): Promise<void>
  back(): Promise<void>
  /** What must not be in the log, such as passwords. */
  readonly secrets: readonly string[]
}

export interface NotifyHarness {
  readonly name: string
  /** Why it cannot be tested here. */
  readonly skip: string | false
  open(t: TestContext): Promise<ReceiverUnderTest>
}

/** What every driver with a queue owes to the service. One call in the driver's test file is the whole test. */
export function notifyConformance({ name, skip, open }: NotifyHarness): void {
  const check = (title: string, body: (one: Opened) => Promise<void>) =>
    it(title, { skip, timeout: 120_000 }, async (t) => {
      const receiver = await open(t)
      const lines: string[] = []
      const driver = (options: Partial<QueueOptions> = {}) => {
        const opened = queued(receiver.sender, { ...OPTIONS, log: recorded(lines), ...options })
        t.after(() => opened.close(0))
        return opened
      }
      await body({ ...receiver, driver, lines })
      for (const secret of receiver.secrets)
        assert.ok(!lines.some((line) => line.includes(secret)), 'a secret is logged')
    })

  describe(`notifications over ${name}`, () => {
    check('arrive once each, in order', async ({ driver, received }) => {
      const sent = tell(driver(), 500)
      assert.deepEqual(await received(500), sent)
    })

    check('are all delivered when the driver closes', async ({ driver, received }) => {
      const open = driver()
      const sent = tell(open, 200)
      await open.close(30_000)
      assert.deepEqual(await received(200), sent)
    })

    check('wait for a receiver that is not there yet', async ({ driver, received, away, back, lines }) => {
      await away()
      const open = driver()
      const sent = tell(open, 50)
      await waitFor('a failed attempt', () => lines.some((line) => line.includes('attempt 1 failed')))
      await back()
      assert.deepEqual(await received(50), sent)
      assert.ok(lines.some((line) => line.includes('delivered again')))
    })

    check('are not lost when the receiver goes away under load, and keep their order', async (one) => {
      const open = one.driver()
      const sent: string[] = []
      const round = async (count: number) => {
        for (let index = 0; index < count; index++) {
          sent.push(...tell(open, 10))
          await new Promise<void>((resolve) => setImmediate(resolve))
        }
      }
      await round(20)
      const leaving = one.away()
      await round(20)
      await leaving
      await round(20)
      await one.back()
      await round(20)
      const arrived = await one.received(sent.length)
      // What was on its way when the receiver left may come twice, since nobody knows whether it had arrived.
      assert.deepEqual([...new Set(arrived)], sent)
    })

    check('that do not fit the queue are dropped and counted; those that wait stay', async (one) => {
      await one.away()
      const open = one.driver({ maxMessages: 30 })
      const sent = tell(open, 100)
      await one.back()
      assert.deepEqual(await one.received(30), sent.slice(0, 30))
      await open.close(30_000)
      const counted = one.lines.map((line) => Number(/(\d+) notifications were dropped/.exec(line)?.[1] ?? 0))
      assert.equal(
        counted.reduce((sum, count) => sum + count, 0),
        70,
      )
    })

    check('hold up neither a caller nor the end of the service', async (one) => {
      await one.away()
      const open = one.driver()
      tell(open, 10)
      await open.close(100)
      assert.ok(one.lines.some((line) => line.includes('10 notifications were not delivered')))
      await one.back()
    })
  })
}

interface Opened extends ReceiverUnderTest {
  readonly lines: readonly string[]
  driver(options?: Partial<QueueOptions>): NotifyDriver
}

const OPTIONS: QueueOptions = {
  maxMessages: 10_000,
  maxSize: 1e9,
  retries: -1,
  pauseMs: () => 50,
  log: silentLog,
}

/** Hands `count` new messages over at once; gives their ids. */
function tell(driver: NotifyDriver, count: number): readonly string[] {
  const messages = Array.from({ length: count }, exampleMessage)
  for (const message of messages) driver.accept(message)
  return messages.map(({ id }) => id)
}

export function exampleMessage(): Message {
  const time = new Date('2026-01-02T03:04:05.678Z')
  const member = {
    imageId: '71c675ab-d94f-49cd-a114-e12490b328d9' as ImageId,
    member: 'größe' as ProjectId,
    status: 'pending' as const,
    createdAt: time,
    updatedAt: time,
  }
  return createMessage({ type: 'image.member.create', member }, 'image.localhost')
}

const recorded = (lines: string[]) => {
  const note = (message: string, error?: unknown) => void lines.push(`${message} ${describeAll(error)}`)
  return { ...silentLog, info: note, warn: note, error: note }
}
const describeAll = (error: unknown): string =>
  error instanceof Error ? `${error.message} <- ${describeAll(error.cause)}` : String(error ?? '')

async function waitFor(what: string, condition: () => boolean): Promise<void> {
  const end = performance.now() + 30_000
  while (!condition()) {
    if (performance.now() > end) throw new Error(`Waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
