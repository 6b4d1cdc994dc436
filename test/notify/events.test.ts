import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { until } from '../support/product.ts'
import { startServer, type TestServer } from '../support/server.ts'
import {
  emptyQueue,
  type Listener,
  listen,
  missing,
  type RabbitServer,
  startRabbitmq,
} from '../support/servers/rabbitmq.ts'
import { type Event, play, STEPS, type Step } from './scenario.ts'

const read = async (name: string): Promise<unknown> =>
  JSON.parse(await readFile(new URL(name, import.meta.url), 'utf8')) as unknown
const recorded = (await read('events.json')) as Record<string, readonly Event[]>
const differences = (await read('differences.json')) as Record<string, { why: string; events: readonly Event[] }>

/** The consumer of oslo.messaging: prints each notification as one line of JSON. */
const CONSUMER = `
import json, sys
from oslo_config import cfg
import oslo_messaging

class Endpoint:
    def info(self, *heard):
        self.tell('info', *heard)
    def error(self, *heard):
        self.tell('error', *heard)
    def tell(self, priority, context, *rest):
        context.pop('client_timeout', None) # the consumer's own
        print(json.dumps([priority, context, *rest]), flush=True)

conf = cfg.ConfigOpts()
conf([])
transport = oslo_messaging.get_notification_transport(conf, url=sys.argv[1])
target = oslo_messaging.Target(exchange='glance', topic='notifications')
listener = oslo_messaging.get_notification_listener(transport, [target], [Endpoint()], executor='threading')
listener.start()
listener.wait()
`
const PYTHON = '/usr/bin/python3'

function consumerMissing(): string | false {
  if (existsSync('/usr/lib/python3/dist-packages/oslo_messaging')) return false
  if (process.env['CI'] === 'true') throw new Error('python3-oslo.messaging is not installed')
  return 'python3-oslo.messaging is not installed'
}

describe('notifications over RabbitMQ', { skip: missing(), timeout: 240_000 }, () => {
  let broker: RabbitServer
  let server: TestServer
  let listener: Listener

  before(async () => {
    broker = await startRabbitmq()
    server = await startServer({
      config: {
        DEFAULT: {
          enabled_backends: 'fast:file, cheap:file',
          user_storage_quota: '100B',
          transport_url: `rabbit://guest:guest@127.0.0.1:${broker.port}/`,
        },
        glance_store: { default_backend: 'fast' },
        oslo_messaging_notifications: { driver: 'messagingv2' },
      },
    })
    listener = await listen(broker.url)
  })
  after(async () => {
    await listener.close()
    await server.close()
    await broker.stop()
  })

  it('tell the same as the real Glance, event by event', async () => {
    const told = await play(server.url, STEPS, listener.received, 100)
    for (const { title } of STEPS) {
      assert.deepEqual(told[title], differences[title]?.events ?? recorded[title], title)
      if (differences[title]) assert.notDeepEqual(told[title], recorded[title], `${title}: is no difference any more`)
    }
  })

  it('tell of an upload that fails on its way, and that the image is queued again', async () => {
    const before = listener.received.length
    const headers = { 'X-Auth-Token': 'dora:notify-d:member,reader', 'Content-Type': 'application/json' }
    const body = JSON.stringify({ name: 'too large', disk_format: 'raw', container_format: 'bare' })
    const created = await fetch(`${server.url}/v2/images`, { method: 'POST', headers, body })
    const { id } = (await created.json()) as { id: string }
    const upload = await fetch(`${server.url}/v2/images/${id}/file`, {
      method: 'PUT',
      headers: { ...headers, 'Content-Type': 'application/octet-stream' },
      body: new Blob(['x'.repeat(120)]).stream(), // of a length that nobody announces
      duplex: 'half',
    } as RequestInit)
    assert.equal(upload.status, 413)
    await until('five messages', () => listener.received.length >= before + 5)
    const told = listener.received.slice(before).map(({ routingKey, body: message }) => {
      const { event_type: event, payload } = message
      return [routingKey, event, typeof payload === 'string' ? payload : (payload as { status: string }).status]
    })
    const reason =
      'Image exceeds the storage quota: The size of the data 120 will exceed the limit. 100 bytes remaining.'
    assert.deepEqual(told, [
      ['notifications.info', 'image.create', 'queued'],
      ['notifications.info', 'image.update', 'saving'],
      ['notifications.info', 'image.prepare', 'saving'],
      ['notifications.error', 'image.upload', `Failed to upload image data for image ${id}: ${reason}`],
      ['notifications.info', 'image.update', 'queued'],
    ])
  })

  it("reach oslo.messaging's own consumer, also those from before it came", { skip: consumerMissing() }, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'glimpse-consumer-'))
    t.after(() => rm(dir, { recursive: true }))
    await writeFile(join(dir, 'consumer.py'), CONSUMER)
    const consumer = spawn(PYTHON, [join(dir, 'consumer.py'), `rabbit://guest:guest@127.0.0.1:${broker.port}/`], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { PATH: '/usr/bin:/bin', HOME: dir },
    })
    t.after(() => consumer.kill('SIGKILL'))
    type Heard = readonly [
      priority: string,
      context: object,
      publisher: string,
      event: string,
      payload: unknown,
      metadata: object,
    ]
    const heard: Heard[] = []
    createInterface({ input: consumer.stdout }).on('line', (line) => heard.push(JSON.parse(line) as Heard))

    const name = 'ein Bild für Python ☃'
    const step: Step = {
      title: 'create',
      as: 'alice',
      method: 'POST',
      path: '/v2/images',
      body: { name },
      status: 201,
    }
    await play(server.url, [step], listener.received, 100)
    const latest = listener.received.at(-1)?.body
    const found = () => heard.find((one) => (one[4] as { name?: unknown }).name === name)
    await until('the message at the consumer', () => found() !== undefined)
    assert.deepEqual(found(), [
      'info',
      {},
      'image.localhost',
      'image.create',
      latest?.['payload'],
      { message_id: latest?.['message_id'], timestamp: latest?.['timestamp'] },
    ])
    await until('all messages', () => heard.length === listener.received.length)
    assert.ok(heard.some(([priority, , , event]) => priority === 'error' && event === 'image.upload'))
  })

  it('wait while the broker is away, which no request notices', async () => {
    await broker.halt()
    const headers = { 'X-Auth-Token': 'erin:notify-e:member,reader', 'Content-Type': 'application/json' }
    const names = Array.from({ length: 20 }, (_, index) => `image ${index}`)
    for (const name of names) {
      const answer = await fetch(`${server.url}/v2/images`, { method: 'POST', headers, body: JSON.stringify({ name }) })
      assert.equal(answer.status, 201)
      await answer.body?.cancel()
    }
    await broker.start()
    const arrived: unknown[] = []
    await until('the messages of the meantime', async () => {
      // Until the first of them there is no queue to look into.
      const taken = await emptyQueue(broker.url, 'notifications.info').catch(() => [])
      arrived.push(...taken.map(({ body }) => (body['payload'] as { name: unknown }).name))
      return arrived.length >= names.length
    })
    assert.deepEqual(arrived, names)
  })
})
