/** RabbitMQ stops and starts while the API is busy: every notification arrives once, or is one too many for the queue. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { until } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { emptyQueue, missing, type RabbitServer, startRabbitmq } from '../support/servers/rabbitmq.ts'
import { type Client, clientOf } from './client.ts'

/** Messages that are on their way to the broker at once. */
const WINDOW = 100

describe('notifications of a busy service', { skip: missing(), timeout: 240_000 }, () => {
  let broker: RabbitServer
  before(async () => {
    broker = await startRabbitmq()
  })
  after(() => broker.stop())

  const open = (topic: string, limits: Readonly<Record<string, string>> = {}): Promise<TestServer> =>
    startServer({
      config: {
        DEFAULT: { transport_url: `rabbit://guest:guest@127.0.0.1:${broker.port}/` },
        oslo_messaging_notifications: { driver: 'messagingv2', topics: topic },
        // What is in the queue is there after a kill.
        oslo_messaging_rabbit: { amqp_durable_queues: 'True', rabbit_interval_max: '1' },
        glimpse: limits,
      },
    })
  /** What has come about each image, by name of the image: the kinds of events, with how often they came. */
  const collector = (topic: string) => {
    const events = new Map<string, string[]>()
    const ids = new Map<string, number>()
    return {
      events,
      ids,
      take: async () => {
        for (const { body } of await emptyQueue(broker.url, `${topic}.info`).catch(() => [])) {
          const id = String(body['message_id'])
          ids.set(id, (ids.get(id) ?? 0) + 1)
          const { name } = body['payload'] as { name: string }
          if (ids.get(id) === 1) events.set(name, [...(events.get(name) ?? []), String(body['event_type'])])
        }
      },
    }
  }
  const live = async (user: Client, name: string): Promise<void> => {
    const id = await user.create({ name })
    assert.equal((await user.put(id, 'file', Buffer.from(name))).status, 204)
    assert.equal((await user.send('DELETE', `/v2/images/${id}`)).status, 204)
  }
  /** Images that clients make, fill and delete until `stop`. */
  const load = (user: Client) => {
    const done: string[] = []
    const stop = new AbortController()
    const clients = Array.from({ length: 4 }, async (_, client) => {
      for (let n = 0; !stop.signal.aborted; n += 1) {
        const name = `image ${client}.${n}`
        await live(user, name)
        done.push(name)
      }
    })
    return {
      done,
      more: (count: number) => {
        const begun = done.length
        return until(`${count} images`, () => done.length >= begun + count)
      },
      stop: async () => {
        stop.abort()
        await Promise.all(clients)
      },
    }
  }
  const STORY = [
    'image.create',
    'image.update',
    'image.prepare',
    'image.upload',
    'image.activate',
    'image.update',
    'image.delete',
  ]

  it('arrive in order and once each, though the broker stops twice', async (t) => {
    const server = await open('busy')
    t.after(() => server.close())
    const user = clientOf(server)
    const { events, ids, take } = collector('busy')
    const busy = load(user)
    await busy.more(10)
    for (let stop = 0; stop < 2; stop += 1) {
      await broker.halt()
      await busy.more(20)
      await broker.start()
      await busy.more(10)
    }
    await busy.stop()
    const complete = () => busy.done.every((name) => events.get(name)?.length === STORY.length)
    await until('all messages', async () => {
      await take()
      return complete()
    }).catch(() => undefined)
    const stories = Object.fromEntries(busy.done.map((name) => [name, events.get(name)]))
    assert.deepEqual(stories, Object.fromEntries(busy.done.map((name) => [name, STORY])))
    // What was under way as the broker died is sent again: it alone may have come twice, under the same id.
    const twice = [...ids.values()].filter((count) => count > 1).length
    assert.ok(twice <= 2 * WINDOW, `${twice} of ${ids.size} messages came again`)
    t.diagnostic(`${busy.done.length} images, ${ids.size} messages, ${twice} came again`)
  })

  it('are dropped when there are too many for the queue, the last ones alone', async (t) => {
    const kept = 100
    const server = await open('small', { notification_queue_length: String(kept) })
    t.after(() => server.close())
    const user = clientOf(server)
    const { events, ids, take } = collector('small')
    await live(user, 'first')
    await until('the first', async () => {
      await take()
      return events.get('first')?.length === STORY.length
    })
    await broker.halt()
    const names = Array.from({ length: 30 }, (_, n) => `image ${n}`)
    for (const name of names) await live(user, name)
    await broker.start()
    await until('what was kept', async () => {
      await take()
      return ids.size >= STORY.length + kept
    })
    await live(user, 'last')
    await until('the last', async () => {
      await take()
      return events.get('last')?.length === STORY.length
    })
    const arrived = names.flatMap((name) => events.get(name) ?? [])
    assert.deepEqual(arrived, names.flatMap(() => STORY).slice(0, kept))
    assert.equal(ids.size, 2 * STORY.length + kept)
  })
})
