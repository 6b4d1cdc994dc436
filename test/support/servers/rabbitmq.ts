import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type Message } from 'amqplib'
import { freePort, tail, until } from '../product.ts'

const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
const EPMD = '/usr/bin/epmd'

export interface RabbitServer {
  /** Where all that it writes is. */
  readonly dir: string
  /** `amqp://guest:guest@127.0.0.1:PORT`. */
  readonly url: string
  readonly port: number
  /** Kills the broker; what it keeps on disk is there after `start()`. */
  halt(): Promise<void>
  start(): Promise<void>
  /** Stops the broker in its tracks: connections stay, and nothing moves. */
  freeze(): void
  thaw(): void
  /** Ends everything and deletes it. */
  stop(): Promise<void>
}

export interface RabbitOptions {
  readonly config?: string
  readonly plugins?: readonly string[]
  readonly prepare?: (dir: string) => Promise<void>
}

/** Whether RabbitMQ is installed here; the reason when it is not. With CI=true that is a failure. */
export function missing(): string | false {
  if (existsSync(SERVER) && existsSync(EPMD)) return false
  if (process.env['CI'] === 'true') throw new Error('rabbitmq-server is not installed')
  return 'rabbitmq-server is not installed'
}

/**
 * Starts a real RabbitMQ on free ports of the loopback device, with all that it writes in a folder of its own. `config`
 * is for rabbitmq.conf, where `{dir}` stands for that folder; `prepare` puts further files into it.
 */
export async function startRabbitmq({ config = '', plugins = [], prepare }: RabbitOptions = {}): Promise<RabbitServer> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-rabbitmq-'))
  const [port, distPort, epmdPort] = [await freePort(), await freePort(), await freePort()]
  await mkdir(join(dir, 'log'))
  await writeFile(join(dir, 'rabbitmq.conf'), `listeners.tcp.1 = 127.0.0.1:${port}\n${config.replaceAll('{dir}', dir)}`)
  await writeFile(join(dir, 'enabled_plugins'), `[${plugins.join(',')}].\n`)
  await prepare?.(dir)
  const env = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LC_ALL: 'C.UTF-8',
    HOME: dir, // where Erlang keeps the cookie that its nodes know each other by
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: `glimpse-${port}@localhost`,
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_CONFIG_FILE: join(dir, 'rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(dir, 'enabled_plugins'),
    RABBITMQ_MNESIA_BASE: join(dir, 'mnesia'),
    RABBITMQ_LOG_BASE: join(dir, 'log'),
    RABBITMQ_PID_FILE: join(dir, 'pid'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}',
  }
  const log = join(dir, 'server.log')
  const run = (command: string, args: readonly string[]): ChildProcess => {
    const out = openSync(log, 'a')
    return spawn(command, args, { env, cwd: dir, detached: true, stdio: ['ignore', out, out] })
  }
  // Erlang's port mapper, in the foreground: otherwise the broker would leave one behind.
  const epmd = run(EPMD, ['-port', String(epmdPort), '-address', '127.0.0.1'])
  let broker: ChildProcess | undefined
  const killAll = (): void => {
    for (const child of [broker, epmd]) if (child !== undefined) killGroup(child)
  }
  process.once('exit', killAll)

  const url = `amqp://guest:guest@127.0.0.1:${port}`
  const start = async () => {
    broker = run(SERVER, [])
    await until(
      `RabbitMQ at ${url}\n${tail(log)}`,
      async () => {
        if (broker?.exitCode !== null) throw new Error(`RabbitMQ ended with code ${broker?.exitCode}\n${tail(log)}`)
        return connect(url).then(
          (connection) => connection.close().then(() => true),
          () => false,
        )
      },
      { everyMs: 100 },
    )
  }
  const halt = async () => {
    const ended = broker
    broker = undefined
    if (ended === undefined) return
    const exit = ended.exitCode === null && ended.signalCode === null ? once(ended, 'exit') : undefined
    killGroup(ended)
    await exit
  }
  const stop = async () => {
    await halt()
    killGroup(epmd)
    process.off('exit', killAll)
    await rm(dir, { recursive: true, force: true, maxRetries: 5 })
  }
  try {
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  const signal = (name: NodeJS.Signals) => () => {
    if (broker?.pid !== undefined) process.kill(-broker.pid, name)
  }
  return { dir, url, port, start, halt, freeze: signal('SIGSTOP'), thaw: signal('SIGCONT'), stop }
}

function killGroup(child: ChildProcess): void {
  try {
    process.kill(-(child.pid as number), 'SIGKILL')
  } catch {
    // Nobody is left in the group.
  }
}

/** A message as it is on the wire. */
export interface Delivery {
  readonly routingKey: string
  readonly properties: Readonly<Record<string, unknown>>
  readonly raw: Buffer
  /** The notification, out of its envelope if it had one. */
  readonly body: Readonly<Record<string, unknown>>
}

export interface Listener {
  /** All that came in so far, in order. */
  readonly received: readonly Delivery[]
  close(): Promise<void>
}

/** Listens to everything that is published to an exchange, over a queue of its own. */
export async function listen(url: string, exchange = 'glance', durable = false): Promise<Listener> {
  const connection = await connect(url)
  connection.on('error', () => undefined)
  const channel = await connection.createChannel()
  channel.on('error', () => undefined)
  await channel.assertExchange(exchange, 'topic', { durable })
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, exchange, '#')
  const received: Delivery[] = []
  await channel.consume(
    queue,
    (message) => {
      if (message === null) return
      received.push(delivery(message.fields.routingKey, message))
    },
    { noAck: true },
  )
  return { received, close: () => connection.close().catch(() => undefined) } // it may be lost already
}

const delivery = (routingKey: string, { properties, content }: Message): Delivery => ({
  routingKey,
  properties: properties as unknown as Readonly<Record<string, unknown>>,
  raw: content,
  body: opened(JSON.parse(content.toString('utf8')) as Record<string, unknown>),
})

const opened = (body: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
  typeof body['oslo.message'] === 'string' ? (JSON.parse(body['oslo.message']) as Record<string, unknown>) : body

/** Takes all that is in a queue now, the oldest first. */
export async function emptyQueue(url: string, queue: string): Promise<readonly Delivery[]> {
  const connection = await connect(url)
  try {
    const channel = await connection.createChannel()
    channel.on('error', () => undefined) // get() throws it
    const taken: Delivery[] = []
    for (let next = await channel.get(queue, { noAck: true }); next; next = await channel.get(queue, { noAck: true })) {
      taken.push(delivery(next.fields.routingKey, next))
    }
    return taken
  } finally {
    await connection.close()
  }
}
