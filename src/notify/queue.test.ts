import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { silentLog } from '../log.ts'
import { exampleMessage } from './conformance.ts'
import { type QueueOptions, queued, type Sender } from './queue.ts'

const options: QueueOptions = { maxMessages: 100, maxSize: 1e6, retries: -1, pauseMs: () => 1, log: silentLog }

/** Takes what `takes` says; remembers the ids that were tried, and how many at once. */
function fakeSender(takes: (id: string) => Promise<void>, window = 1) {
  const tried: string[] = []
  let under = 0
  let most = 0
  const sender: Sender = {
    name: 'a sender',
    window,
    send: async ({ id }) => {
      tried.push(id)
      under += 1
      most = Math.max(most, under)
      try {
        await takes(id)
      } finally {
        under -= 1
      }
    },
    close: async () => undefined,
  }
  return { sender, tried, most: () => most }
}

describe('the queue before a receiver', () => {
  it('takes a message without sending it before the caller goes on', async () => {
    const { sender, tried } = fakeSender(async () => undefined)
    const driver = queued(sender, options)
    driver.accept(exampleMessage())
    await Promise.resolve()
    assert.equal(tried.length, 0)
    await driver.close(1000)
    assert.equal(tried.length, 1)
  })

  it('has no more under way than its window, and repeats only what failed', async () => {
    const failing = new Set<string>()
    const { sender, tried, most } = fakeSender(async (id) => {
      await new Promise((resolve) => setTimeout(resolve, 1))
      if (failing.delete(id)) throw new Error('not now')
    }, 4)
    const driver = queued(sender, options)
    const messages = Array.from({ length: 10 }, exampleMessage)
    failing.add(messages[1]?.id ?? '')
    for (const message of messages) driver.accept(message)
    await driver.close(5000)
    assert.equal(most(), 4)
    const ids = messages.map(({ id }) => id)
    assert.deepEqual(tried.slice(0, 4), ids.slice(0, 4))
    assert.deepEqual(tried.slice(4), [ids[1], ...ids.slice(4)])
  })

  it('gives a message up after its retries, and says which', async () => {
    const errors: string[] = []
    const { sender, tried } = fakeSender(async () => {
      throw new Error('never')
    })
    const driver = queued(sender, {
      ...options,
      retries: 2,
      log: { ...silentLog, error: (line) => void errors.push(line) },
    })
    const message = exampleMessage()
    driver.accept(message)
    await driver.close(5000)
    assert.equal(tried.length, 3)
    assert.deepEqual(errors, [`a sender: notification image.member.create ${message.id} is dropped`])
  })

  it('gives a receiver that is away its pauses, also when nothing is tried again', async () => {
    const pauses: number[] = []
    const lines: string[] = []
    let away = true
    const { sender, tried } = fakeSender(async () => {
      if (away) throw new Error('away')
    })
    const driver = queued(sender, {
      ...options,
      retries: 0,
      pauseMs: (failures) => {
        pauses.push(failures)
        if (failures === 3) away = false
        return 1
      },
      log: { ...silentLog, info: (line) => void lines.push(line) },
    })
    for (let count = 0; count < 5; count++) driver.accept(exampleMessage())
    await driver.close(5000)
    assert.deepEqual(pauses, [1, 2, 3])
    assert.equal(tried.length, 5)
    assert.deepEqual(lines, ['a sender: notifications are delivered again'])
  })

  it('counts the size of what waits as well', async () => {
    const { sender, tried } = fakeSender(async () => undefined)
    const message = exampleMessage()
    const driver = queued(sender, { ...options, maxSize: message.json.length * 2.5 })
    for (let count = 0; count < 5; count++) driver.accept(message)
    await driver.close(1000)
    assert.equal(tried.length, 2)
  })

  it('has room again once messages have gone, whatever became of them', async () => {
    const { sender, tried } = fakeSender(async () => undefined)
    const message = exampleMessage()
    const driver = queued(sender, { ...options, maxMessages: 1, maxSize: message.json.length })
    for (let count = 0; count < 50; count++) {
      driver.accept(message)
      while (tried.length <= count) await new Promise<void>((resolve) => setImmediate(resolve))
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    await driver.close(1000)
    assert.equal(tried.length, 50)
  })

  it('starts again for what comes while the last message is being settled', async () => {
    const { sender, tried } = fakeSender(async () => undefined)
    const driver = queued(sender, options)
    // At every possible moment after the first message.
    for (let ticks = 0; ticks < 20; ticks++) {
      driver.accept(exampleMessage())
      await new Promise<void>((resolve) => setImmediate(resolve))
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
      driver.accept(exampleMessage())
      while (tried.length < 2 * (ticks + 1)) await new Promise<void>((resolve) => setImmediate(resolve))
    }
    await driver.close(1000)
    assert.equal(tried.length, 40)
  })
})
