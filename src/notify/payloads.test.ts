import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import type { Image } from '../domain/image.ts'
import type { Task } from '../domain/task.ts'
import type { Notification } from './notifier.ts'
import { tell } from './payloads.ts'

interface Recorded {
  readonly event: Notification['type']
  readonly priority: string
  readonly payload: Readonly<Record<string, unknown>>
}

const NOW = new Date('2026-01-02T03:04:05.678Z')

/** The messages of an import by the real Glance; times stand at the moment of the test. */
const recorded = JSON.parse(
  await readFile(new URL('../../test/notify/import.json', import.meta.url), 'utf8'),
  (_, value: unknown) => (value === '{{time}}' ? '2026-01-02T03:04:05Z' : value),
) as readonly Recorded[]

const imageOf = (payload: Recorded['payload']) =>
  ({
    ...payload,
    virtualSize: payload['virtual_size'],
    minRam: payload['min_ram'],
    minDisk: payload['min_disk'],
    diskFormat: payload['disk_format'],
    containerFormat: payload['container_format'],
    createdAt: NOW,
    updatedAt: NOW,
    properties: new Map(Object.entries(payload['properties'] as object)),
    locations: [{ uri: 'file:///secret', store: 'fast', metadata: {} }],
  }) as unknown as Image

const taskOf = (payload: Recorded['payload']) =>
  ({
    ...payload,
    input: 'confidential',
    result: 'confidential',
    message: 'confidential',
    expiresAt: null,
    createdAt: NOW,
    updatedAt: NOW,
  }) as unknown as Task

describe('the payload of', () => {
  for (const [index, { event, priority, payload }] of recorded.entries()) {
    it(`${event}, message ${index + 1} of an import, is what the real Glance sends`, () => {
      const notification = event.startsWith('task.')
        ? { type: event, task: taskOf(payload) }
        : { type: event, image: imageOf(payload), store: payload['backend'] }
      assert.deepEqual(tell(notification as Notification, NOW), { priority, payload })
    })
  }

  it('a failed upload is the reason, at the priority of errors', () => {
    const imageId = imageOf({ id: 'x', properties: {} }).id
    assert.deepEqual(tell({ type: 'image.upload', imageId, failure: 'no room' }, NOW), {
      priority: 'ERROR',
      payload: 'no room',
    })
  })

  it('a download that ended early has the priority of errors', () => {
    const event = { type: 'image.send', image: imageOf({ properties: {} }), expected: 10, to: {} } as const
    const send = (bytes: number) => tell({ ...event, bytes } as unknown as Notification, NOW).priority
    assert.equal(send(9), 'ERROR')
    assert.equal(send(10), 'INFO')
  })
})
