import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Task } from '../domain/task.ts'
import { announcer } from './announcer.ts'
import type { Message, NotifyDriver } from './driver.ts'
import type { Notification } from './notifier.ts'
import { silentNotifier } from './notifier.ts'

function remembering() {
  const messages: Message[] = []
  const closed: number[] = []
  const driver: NotifyDriver = {
    accept: (message) => void messages.push(message),
    close: async (timeoutMs) => void closed.push(timeoutMs),
  }
  return { messages, closed, driver }
}

const time = new Date()
const member = { createdAt: time, updatedAt: time }
const events = [
  { type: 'image.member.create', member },
  { type: 'image.member.delete', member },
  { type: 'task.create', task: { createdAt: time, updatedAt: time, expiresAt: time } as Task },
  { type: 'metadef_tag.create', namespace: 'a', item: { name: 'b', createdAt: time, updatedAt: time } },
] as unknown as readonly Notification[]

const told = (disabled: readonly string[]): readonly string[] => {
  const { messages, driver } = remembering()
  const notifier = announcer({ drivers: [driver], publisher: 'p', disabled, drainMs: 0 })
  for (const event of events) notifier.notify(event)
  return messages.map(({ event }) => event)
}

describe('disabled_notifications', () => {
  const all = events.map(({ type }) => type)
  for (const [disabled, left] of [
    [[], all],
    [['image.member.create'], all.slice(1)],
    [['image'], all.slice(2)],
    // Only the first word makes a group, whatever upstream's documentation says.
    [['image.member'], all],
    [['task', 'metadef_tag'], all.slice(0, 2)],
    [['metadef'], all],
  ] as const) {
    it(`with ${disabled.join(', ') || 'nothing'} in it lets through ${left.join(', ')}`, () => {
      assert.deepEqual(told(disabled), left)
    })
  }
})

describe('a notification', () => {
  it('goes to every driver as the same message', async () => {
    const [one, two] = [remembering(), remembering()]
    const notifier = announcer({ drivers: [one.driver, two.driver], publisher: 'image.host', disabled: [], drainMs: 7 })
    notifier.notify(events[0] as Notification)
    assert.equal(one.messages[0], two.messages[0])
    const { message_id, publisher_id, event_type, priority } = JSON.parse(one.messages[0]?.json ?? '')
    assert.equal(message_id, one.messages[0]?.id)
    assert.deepEqual([publisher_id, event_type, priority], ['image.host', 'image.member.create', 'INFO'])
    await notifier.close()
    assert.deepEqual([one.closed, two.closed], [[7], [7]])
  })

  it('is nothing at all without drivers', () => {
    assert.equal(announcer({ drivers: [], publisher: '', disabled: [], drainMs: 0 }), silentNotifier)
  })
})
