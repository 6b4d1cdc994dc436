import { createHash, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { SecureVersion } from 'node:tls'
import { brotliCompressSync, deflateSync, zstdCompressSync } from 'node:zlib'
import { type Channel, type ChannelModel, type ConfirmChannel, connect, credentials } from 'amqplib'
import type { Log } from '../../log.ts'
import type { Message } from '../driver.ts'
import type { Sender } from '../queue.ts'
import type { BrokerHost, TransportUrl } from '../transport-url.ts'

export interface AmqpOptions {
  /** Hosts are tried in turn, beginning with the first. */
  readonly broker: Pick<TransportUrl, 'hosts' | 'vhost'>
  readonly exchange: string
  readonly topics: readonly string[]
  /** Whether messages go in the envelope of `messagingv2`. */
  readonly envelope: boolean
  readonly durable: boolean
  readonly autoDelete: boolean
  readonly queueArguments: Readonly<Record<string, string | number>>
  readonly login: 'PLAIN' | 'AMQPLAIN' | 'EXTERNAL'
  /** Seconds; 0: no heartbeat. */
  readonly heartbeat: number
  readonly compression: string | undefined
  readonly tls: TlsFiles | undefined
  readonly log: Log
}

export interface TlsFiles {
  /** The only version of TLS, when there may be but one. */
  readonly version: SecureVersion | undefined
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
  readonly verifyHostname: boolean
}

/** How long a broker gets to answer while a connection is made. */
const CONNECT_MS = 10_000
/** Unconfirmed messages on the way to the broker: enough to hide the time that each confirmation takes. */
const WINDOW = 100
/** How long to wait for the end of a connection. */
const HANG_UP_MS = 1000
const PRECONDITION_FAILED = 406

const moment = () => delay(HANG_UP_MS, undefined, { ref: false })

/** What kombu calls these compressions, and how it does them; its `gzip` is zlib's format. */
const COMPRESSIONS: Readonly<Record<string, { readonly type: string; readonly pack: (data: Buffer) => Buffer }>> = {
  gzip: { type: 'application/x-gzip', pack: deflateSync },
  zlib: { type: 'application/x-gzip', pack: deflateSync },
  brotli: { type: 'application/x-brotli', pack: brotliCompressSync },
  zstd: { type: 'application/zstd', pack: zstdCompressSync },
}

/** A connection, and what has been declared over it. */
interface Session {
  readonly connection: ChannelModel
  readonly channel: ConfirmChannel
  /** Whether queues are durable: as the exchange is. */
  readonly durable: boolean
  /** Declared and bound, by routing key. */
  readonly queues: Map<string, Promise<void>>
}

/**
 * Publishes as oslo.messaging does: to a topic exchange, and into a queue for each topic and priority which is declared
 * here, so that messages wait for their first consumer. One counts as sent when the broker has confirmed it.
 */
export function amqpSender(options: AmqpOptions): Sender {
  const { exchange, autoDelete, log } = options
  const name = `AMQP exchange ${exchange}`
  const compression = options.compression === undefined ? undefined : COMPRESSIONS[options.compression]
  if (options.compression !== undefined && compression === undefined)
    log.warn(`kombu_compression = ${options.compression} is not known here: messages are not compressed`)
  const { hosts } = options.broker
  let next = 0
  let session: Promise<Session> | undefined

  /** The present connection, or a new one: to the next host if there was one before. */
  const current = (): Promise<Session> => {
    if (session !== undefined) return session
    const opening = open(hosts[next % hosts.length] as BrokerHost, () => {
      if (session !== opening) return
      session = undefined
      next += 1
    })
    session = opening
    return opening
  }

  const open = async (host: BrokerHost, forget: () => void): Promise<Session> => {
    let connection: ChannelModel | undefined
    try {
      connection = await connectTo(host, options)
      connection.on('error', () => undefined) // 'close' follows
      connection.on('close', forget)
      connection.on('blocked', (reason: string) => log.error(`${name}: the broker takes no messages: ${reason}`))
      connection.on('unblocked', () => log.info(`${name}: the broker takes messages again`))
      const durable = await declareExchange(connection)
      const channel = await connection.createConfirmChannel()
      channel.on('error', () => undefined) // 'close' follows
      channel.on('close', () => connection && hangUp(connection))
      return { connection, channel, durable, queues: new Map() }
    } catch (cause) {
      if (connection !== undefined) await hangUp(connection)
      forget()
      throw new Error(`Cannot use the broker at ${host.hostname}:${host.port}`, { cause })
    }
  }

  /** Gives whether the exchange is durable. One that is there already is used as it is. */
  const declareExchange = async (connection: ChannelModel): Promise<boolean> => {
    const { durable } = options
    const declared = await agreed(connection, (channel) =>
      channel.assertExchange(exchange, 'topic', { durable, autoDelete }),
    )
    if (!declared) log.warn(`${name} is there already, declared otherwise than here: queues will not be durable`)
    return declared && durable
  }

  const declareQueue = async ({ connection, durable }: Session, key: string): Promise<void> => {
    const settings = { durable, autoDelete, arguments: options.queueArguments }
    const declared = await agreed(connection, (channel) => channel.assertQueue(key, settings))
    if (!declared)
      log.warn(`${name}: queue ${key} is there already, declared otherwise than here, and is used as it is`)
    await over(connection, (channel) => channel.bindQueue(key, exchange, key))
  }

  const publish = async (session: Session, topic: string, message: Message): Promise<void> => {
    const key = `${topic}.${message.priority.toLowerCase()}`
    const declared = session.queues.get(key) ?? declareQueue(session, key)
    session.queues.set(key, declared)
    await declared
    const body = encode(message, topic, options.envelope)
    const headers = compression === undefined ? {} : { compression: compression.type }
    const properties = {
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      deliveryMode: 2,
      priority: 0,
      headers,
    }
    await new Promise<void>((resolve, reject) => {
      session.channel.publish(exchange, key, compression?.pack(body) ?? body, properties, (error: unknown) => {
        if (error === null) resolve()
        else reject(error as Error)
      })
    })
  }

  return {
    name,
    window: WINDOW,
    send: async (message) => {
      const open = await current()
      await Promise.all(options.topics.map((topic) => publish(open, topic, message)))
    },
    close: async () => {
      await Promise.race([session?.then(({ connection }) => hangUp(connection)).catch(() => undefined), moment()])
    },
  }
}

/** Logs in to each host and out again: why one refuses, by `host:port`; undefined where it does not. */
export async function tryHosts(options: AmqpOptions): Promise<ReadonlyMap<string, unknown>> {
  const found = options.broker.hosts.map(async (host) => {
    const name = `${host.hostname}:${host.port}`
    try {
      const connection = await connectTo(host, options)
      connection.on('error', () => undefined)
      await hangUp(connection)
      return [name, undefined] as const
    } catch (error) {
      return [name, error] as const
    }
  })
  return new Map(await Promise.all(found))
}

async function connectTo(host: BrokerHost, options: AmqpOptions): Promise<ChannelModel> {
  const { hostname, port, username, password } = host
  const login = { PLAIN: credentials.plain, AMQPLAIN: credentials.amqplain, EXTERNAL: credentials.external }
  return connect(
    {
      protocol: options.tls === undefined ? 'amqp' : 'amqps',
      hostname,
      port,
      vhost: encodeURIComponent(options.broker.vhost),
      heartbeat: options.heartbeat,
    },
    {
      timeout: CONNECT_MS,
      noDelay: true,
      credentials: login[options.login](username, password),
      clientProperties: { connection_name: `${basename(process.argv[1] ?? '')}:${process.pid}:${randomUUID()}` },
      ...(options.tls === undefined ? {} : await tlsOptions(options.tls)),
    },
  )
}

/** As upstream has it: without certificates to know the broker by, it is not checked. */
async function tlsOptions({ version, ca, cert, key, verifyHostname }: TlsFiles) {
  return {
    ...(version === undefined ? {} : { minVersion: version, maxVersion: version }),
    ...(cert === undefined ? {} : { cert: await readFile(cert) }),
    ...(key === undefined ? {} : { key: await readFile(key) }),
    ...(ca === undefined ? { rejectUnauthorized: false } : { ca: await readFile(ca) }),
    ...(verifyHostname ? {} : { checkServerIdentity: () => undefined }),
  }
}

/** Does something over a channel of its own, since the broker closes the channel of what it refuses. */
async function over(connection: ChannelModel, act: (channel: Channel) => Promise<unknown>): Promise<void> {
  const channel = await connection.createChannel()
  channel.on('error', () => undefined) // `act` throws it
  await act(channel)
  await channel.close()
}

/** False when what is declared is there already, and different. */
async function agreed(connection: ChannelModel, declare: (channel: Channel) => Promise<unknown>): Promise<boolean> {
  try {
    await over(connection, declare)
    return true
  } catch (error) {
    if ((error as { code?: unknown }).code === PRECONDITION_FAILED) return false
    throw error
  }
}

/** Says goodbye; to a broker that does not answer, only for a moment. */
async function hangUp(connection: ChannelModel): Promise<void> {
  await Promise.race([connection.close().catch(() => undefined), moment()])
  const { stream } = connection.connection as unknown as { readonly stream: { destroy(): void } }
  stream.destroy()
}

function encode(message: Message, topic: string, envelope: boolean): Buffer {
  // Consumers that listen to several topics tell repetitions by this; it stays the same when a message is sent again.
  const unique = createHash('sha256').update(`${message.id} ${topic} ${envelope}`).digest('hex').slice(0, 32)
  const body = `${message.json.slice(0, -1)}, "_unique_id": "${unique}"}`
  return Buffer.from(envelope ? JSON.stringify({ 'oslo.version': '2.0', 'oslo.message': body }) : body)
}
