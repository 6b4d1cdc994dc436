import assert from 'node:assert/strict'
import { after, before, describe, it, type TestContext } from 'node:test'
import { inflateSync } from 'node:zlib'
import { connect } from 'amqplib'
import { until } from '../../../test/support/product.ts'
import { emptyQueue, missing, type RabbitServer, startRabbitmq } from '../../../test/support/servers/rabbitmq.ts'
import { silentLog } from '../../log.ts'
import { exampleMessage, notifyConformance } from '../conformance.ts'
import { queued } from '../queue.ts'
import { type AmqpOptions, amqpSender } from './amqp.ts'

const skip = missing()
let broker: RabbitServer
let count = 0

before(async () => {
  if (skip === false) broker = await startRabbitmq()
})
after(async () => {
  if (skip === false) await broker.stop()
})

const host = (port: number) => ({ hostname: '127.0.0.1', port, username: 'guest', password: 'guest' })

/** Every test has an exchange and queues of its own. */
function options(more: Partial<AmqpOptions> = {}): AmqpOptions {
  count += 1
  return {
    broker: { hosts: [host(broker.port)], vhost: '/' },
    exchange: `glance${count}`,
    topics: [`topic${count}`],
    envelope: true,
    durable: true,
    autoDelete: false,
    queueArguments: {},
    login: 'AMQPLAIN',
    heartbeat: 10,
    compression: undefined,
    tls: undefined,
    log: silentLog,
    ...more,
  }
}

notifyConformance({
  name: 'AMQP',
  skip,
  open: async () => {
    const settings = options()
    const queue = `${settings.topics[0]}.info`
    const ids: string[] = []
    return {
      sender: amqpSender(settings),
      secrets: ['guest'],
      away: broker.halt,
      back: broker.start,
      received: async (atLeast) => {
        while (new Set(ids).size < atLeast) {
          // Until the first message there is no queue to look into.
          const taken = await emptyQueue(broker.url, queue).catch(() => [])
          ids.push(...taken.map(({ body }) => String(body['message_id'])))
          if (taken.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
        }
        return ids
      },
    }
  },
})

describe('AMQP', { skip }, () => {
  const published = async (t: TestContext, more: Partial<AmqpOptions> = {}) => {
    const settings = options(more)
    const sender = amqpSender(settings)
    t.after(() => sender.close())
    const message = exampleMessage()
    await sender.send(message)
    const queues = await Promise.all(settings.topics.map((topic) => emptyQueue(broker.url, `${topic}.info`)))
    return { settings, sender, message, delivered: queues.flat() }
  }

  it('wraps messages as messagingv2 does', async (t) => {
    const { message, delivered } = await published(t)
    const [one] = delivered
    const outer = JSON.parse(one?.raw.toString() ?? '') as Record<string, string>
    assert.deepEqual(Object.keys(outer), ['oslo.version', 'oslo.message'])
    assert.equal(outer['oslo.version'], '2.0')
    const { _unique_id, ...inner } = JSON.parse(String(outer['oslo.message'])) as Record<string, unknown>
    assert.match(String(_unique_id), /^[0-9a-f]{32}$/)
    assert.deepEqual(inner, JSON.parse(message.json))
    assert.match(String(inner['timestamp']), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?$/)
    assert.deepEqual(JSON.parse(JSON.stringify(one?.properties)), {
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      headers: {},
      deliveryMode: 2,
      priority: 0,
    })
  })

  it('sends the bare message as messaging does', async (t) => {
    const { message, delivered } = await published(t, { envelope: false })
    const { _unique_id, ...bare } = JSON.parse(delivered[0]?.raw.toString() ?? '') as Record<string, unknown>
    assert.deepEqual(bare, JSON.parse(message.json))
    assert.match(String(_unique_id), /^[0-9a-f]{32}$/)
  })

  it('publishes under every topic, each time under another unique id', async (t) => {
    const { delivered } = await published(t, { topics: ['one', 'two'] })
    assert.deepEqual(
      delivered.map(({ routingKey }) => routingKey),
      ['one.info', 'two.info'],
    )
    assert.equal(new Set(delivered.map(({ body }) => body['_unique_id'])).size, 2)
  })

  it('compresses as kombu does', async (t) => {
    const settings = options({ compression: 'gzip', envelope: false })
    const sender = amqpSender(settings)
    t.after(() => sender.close())
    await sender.send(exampleMessage())
    const connection = await connect(broker.url)
    t.after(() => connection.close())
    const message = await (await connection.createChannel()).get(`${settings.topics[0]}.info`, { noAck: true })
    assert.ok(message)
    assert.deepEqual(message.properties.headers, { compression: 'application/x-gzip' })
    assert.equal(JSON.parse(inflateSync(message.content).toString()).publisher_id, 'image.localhost')
  })

  for (const theirs of [true, false]) {
    it(`uses an exchange that is there as ${theirs ? '' : 'not '}durable`, async (t) => {
      const warnings: string[] = []
      const log = { ...silentLog, warn: (line: string) => void warnings.push(line) }
      const settings = options({ durable: !theirs, log })
      const connection = await connect(broker.url)
      t.after(() => connection.close())
      const channel = await connection.createChannel()
      await channel.assertExchange(settings.exchange, 'topic', { durable: theirs })
      const sender = amqpSender(settings)
      t.after(() => sender.close())
      await sender.send(exampleMessage())
      assert.equal(warnings.length, 1)
      await channel.assertQueue(`${settings.topics[0]}.info`, { durable: false })
      assert.equal((await emptyQueue(broker.url, `${settings.topics[0]}.info`)).length, 1)
    })
  }

  it('uses a queue that its consumer has declared otherwise', async (t) => {
    const settings = options({ durable: false })
    const connection = await connect(broker.url)
    t.after(() => connection.close())
    await (await connection.createChannel()).assertQueue(`${settings.topics[0]}.info`, { durable: true })
    const sender = amqpSender(settings)
    t.after(() => sender.close())
    await sender.send(exampleMessage())
    assert.equal((await emptyQueue(broker.url, `${settings.topics[0]}.info`)).length, 1)
  })

  it('declares quorum queues', async (t) => {
    const { settings } = await published(t, { queueArguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 3 } })
    const connection = await connect(broker.url)
    t.after(() => connection.close())
    const channel = await connection.createChannel()
    await channel.assertQueue(`${settings.topics[0]}.info`, {
      durable: true,
      arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 3 },
    })
  })

  it('tries the next host when one does not answer', async (t) => {
    const { delivered } = await publishedAfterFailure(t, [host(1), host(broker.port)])
    assert.equal(delivered, 1)
  })

  it('logs in at each host with what is given for it', async (t) => {
    const wrong = { ...host(broker.port), password: 'wrong' }
    const { delivered, failure } = await publishedAfterFailure(t, [wrong, host(broker.port)])
    assert.equal(delivered, 1)
    assert.match(String((failure.cause as Error).message), /ACCESS.REFUSED/)
  })

  const publishedAfterFailure = async (t: TestContext, hosts: AmqpOptions['broker']['hosts']) => {
    const settings = options({ broker: { hosts, vhost: '/' } })
    const sender = amqpSender(settings)
    t.after(() => sender.close())
    const failure = await sender.send(exampleMessage()).then(
      () => assert.fail('the first host is no good'),
      (error: unknown) => error as Error,
    )
    await sender.send(exampleMessage())
    return { failure, delivered: (await emptyQueue(broker.url, `${settings.topics[0]}.info`)).length }
  }

  it('notices a broker that stands still, and goes on when that moves again', async (t) => {
    const settings = options({ heartbeat: 1 })
    const warnings: string[] = []
    const driver = queued(amqpSender(settings), {
      maxMessages: 100,
      maxSize: 1e6,
      retries: -1,
      pauseMs: () => 50,
      log: { ...silentLog, warn: (line) => void warnings.push(line) },
    })
    t.after(() => driver.close(0))
    const sent: string[] = []
    const tell = () => {
      const message = exampleMessage()
      driver.accept(message)
      sent.push(message.id)
    }
    const arrived = async () =>
      (await emptyQueue(broker.url, `${settings.topics[0]}.info`).catch(() => [])).map(({ body }) => body['message_id'])
    tell()
    const seen: unknown[] = []
    await until('the first message', async () => seen.push(...(await arrived())) > 0)
    broker.freeze()
    tell()
    tell()
    await until('a failed attempt', () => warnings.length > 0)
    broker.thaw()
    await until('the other messages', async () => {
      seen.push(...(await arrived()))
      return new Set(seen).size === sent.length
    })
    assert.deepEqual([...new Set(seen)], sent)
  })

  for (const login of ['PLAIN', 'AMQPLAIN'] as const) {
    it(`logs in by ${login}`, async (t) => {
      const { delivered } = await published(t, { login })
      assert.equal(delivered.length, 1)
    })
  }
})
